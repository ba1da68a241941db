"""The routing room: from a description of work, or a name, to a placement that explains itself."""
