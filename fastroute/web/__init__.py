"""The web room: endpoints decode, call a conductor and encode; no rule lives here."""
