"""What the terminal shows: progress and tables, a command at a time."""
