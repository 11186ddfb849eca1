"""Format 1, read only, for what earlier versions stored. Nothing writes it, and nothing takes it from the wire."""
