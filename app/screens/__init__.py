"""The screens, one a module; `app.shell` lists them."""
