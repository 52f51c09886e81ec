"""How terminals get their identity: one-time codes, enrolment, renewal, revocation. The server half of docs/spec/enrolment.md."""
