"""Pictures: finding, fetching, opening and limiting them; reading their words."""
