"""Side by side with what a user would pick instead: each bench prints a table and one line of JSON."""
