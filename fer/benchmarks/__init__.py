"""What ``fer.bench`` measures, a module each."""
