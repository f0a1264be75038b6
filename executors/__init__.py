"""Do: a plan to an artifact, validated, reported and packaged."""
