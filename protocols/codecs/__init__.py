"""One sans-IO codec per device family: bytes in, frozen events out. No socket, no clock, no thread.

Stream decoders share one shape (`common.StreamDecoder`): `feed(data)`, then `next_event()` until it returns None. A spoiled frame is
dropped and raised once as a `protocols.errors.ProtocolError`; the next call goes on behind it. Bytes that belong to no frame are
counted in `noise_bytes`. Requests are built by `encode_*` functions.

| module | devices | main names |
|---|---|---|
| `escpos` | receipt printers | `EscPosReader`, `encode_status_query`, `encode_auto_status`, `reading_of_real_time`, `reading_of_auto_status` |
| `usb_printer` | USB printer class | `port_status_request`, `device_id_request`, `parse_port_status`, `parse_device_id` |
| `star` | receipt printers in Star's line mode | `StarReader`, `encode_status_query`, `reading_of` |
| `ipp` | A4 printers' own IPP service | `encode_status_query`, `decode_status`, `reading_of`, `address_of` |
| `pjl` | A4 printers | `PjlReader`, `encode_info`, `encode_unsolicited`, `reading_of_code` |
| `sdt` | resident-ID readers (health only) | `SdtReader`, `encode_status`, `encode_sam_number`, `encode_reset`, `split_request` |
| `scanner` | code scanners | `BurstCounter` (keyboard mode), `ScannerReader` (serial), `encode_query`, `encode_zone_read`, `encode_honeywell_query` |
| `keys` | evdev keypads and pads | `InputEvent`, `pack_event`, `EventReader`, `KeyMonitor` |
| `rating` | evaluators on a serial line, and the scale of all | `RatingRules`, `RatingReader`, `level_of`, `scale`, `burst_answer` |
| `callpad` | RS-485 call pads, evaluators, window screens | `FrameRules`, `CallPadReader`, `encode_frame`, `KeySequence` |
| `modbus` | climate and door modules | `ReadRequest`, `encode_read`, `ReplyReader`, `climate_of`, `inputs_of` |
| `megatec` | UPSes | `Query`, `encode`, `MegatecReader`, `conditions_of`, `battery_of` |
| `nmea` | position receivers (framing; coordinates are blanked in evidence) | `NmeaReader`, `Sentence`, `blanked` |
| `card_f2`, `card_stx`, `card_d1801` | card units (state only), words in `card_unit` | `F2Reader`, `StxReader`, `D1801Reader`, `reading_of` |
| `explain` | the evidence drawer | `explain(codec, query, reply)`, `MEANINGS` |
"""
