"""The ledger room: the store behind one door, its migrations, and the registry of models and agents."""
