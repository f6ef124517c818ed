"""FER2013 in memory: readers, the drawn faces, the splits."""
