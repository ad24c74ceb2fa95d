"""Whether what is here, or in a remote, is what the commit says: the chain, a second run, stored objects."""
