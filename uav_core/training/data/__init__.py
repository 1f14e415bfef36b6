"""Training clips: media fetched, cut and degraded."""
