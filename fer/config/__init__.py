"""Settings, the registry, errors, Hydra. No torch here."""
