"""Methods that run as commands in an environment of their own, described by a TOML file."""
