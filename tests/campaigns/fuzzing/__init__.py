"""What the fuzzer feeds: rooms of targets, each of which takes bytes and checks what is promised of them."""
