"""The formats of jigdo, pure: bytes and text to frozen values and back; no path is opened here."""
