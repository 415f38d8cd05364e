"""The service: a catalogue behind HTTP. `app` has the routes, `service` what answers them, `server` runs both."""
