"""What bytes mean: device codecs, the signed-record contract, shared words. Opens nothing, sleeps never, reads no clock."""
