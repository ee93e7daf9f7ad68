"""What papers printed."""
