"""The command line: one thin file per noun, loaded only when its noun is typed."""
