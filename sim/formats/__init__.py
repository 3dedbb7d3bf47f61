"""File formats of others, as `import` reads them: channels, or paths, of users at known positions."""
