"""Messages for those who are away: sealed letters that wait in the DHT. docs/protocol/mail.md."""
