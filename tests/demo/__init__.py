"""The demo runner: a server and a simulated city of 400 terminals on one machine, together by one command."""
