"""What the tests that drive a browser share: patience, since what they wait for may take long on a loaded machine."""

from playwright.sync_api import expect

expect.set_options(timeout=120_000)
