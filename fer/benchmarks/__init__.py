"""The measurements of ``fer.bench``, a module each."""
