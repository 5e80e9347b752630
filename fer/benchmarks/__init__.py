"""What ``fer.bench`` measures, a room each."""
