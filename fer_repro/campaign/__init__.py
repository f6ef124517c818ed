"""Many runs in one budget: what is to run, in which order, on which worker, and how long it will take."""
