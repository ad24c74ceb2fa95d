"""What differs between two revisions, and which of it changed the result."""
