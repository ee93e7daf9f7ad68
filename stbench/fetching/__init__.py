"""Published datasets brought here: where they are, one file over a bad line, archives unpacked without trust."""
