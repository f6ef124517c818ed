"""From a fitted classifier to numbers with intervals."""
