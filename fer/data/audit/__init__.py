"""What is wrong with a data set, and what may be done."""
