"""What everything else stands on: parameters, errors, hashes, files. No torch."""
