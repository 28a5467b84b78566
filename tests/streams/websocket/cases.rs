//! The cases, by what they are about.

use super::client::{
    BINARY, CLOSE, CONTINUATION, Case, FIN, Frame, Outcome, PING, PONG, TEXT, close, frame, header, run,
};

const LIMIT: usize = 64 << 10;

fn text(payload: &[u8]) -> Vec<u8> {
    frame(FIN | TEXT, payload)
}

fn ping(payload: &[u8]) -> Vec<u8> {
    frame(FIN | PING, payload)
}

/// The message comes back.
fn echoes(kind: u8, payload: &[u8]) -> Outcome {
    Outcome::Lives(vec![Frame(FIN | kind, payload.to_vec())])
}

/// A message in these fragments.
fn fragments(kind: u8, parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let last = parts.len() - 1;
    let first =
        |index: usize| (if index == 0 { kind } else { CONTINUATION }) | (if index == last { FIN } else { 0 });
    parts.iter().enumerate().map(|(index, part)| frame(first(index), part)).collect()
}

#[test]
fn messages_of_every_length_come_back_however_they_are_cut() {
    let mut cases = Vec::new();
    for length in [0, 1, 125, 126, 127, 128, 1_024, 65_535, LIMIT] {
        for (kind, byte) in [(TEXT, b'*'), (BINARY, 0xfe)] {
            let payload = vec![byte; length];
            let name = format!("kind {kind} of {length} bytes");
            let case = Case::new(name, &[frame(FIN | kind, &payload)], echoes(kind, &payload));
            cases.extend([case.chopped(1), case.chopped(997), case]);
        }
    }
    run(&cases);
}

#[test]
fn pings_are_answered_with_their_payload_and_pongs_with_nothing() {
    let mut cases = Vec::new();
    for length in [0, 1, 5, 124, 125] {
        let payload = vec![0xfe; length];
        let case = Case::new(format!("ping of {length}"), &[ping(&payload)], echoes(PONG, &payload));
        cases.extend([case.chopped(1), case]);
    }
    for kind in [PING, PONG, CLOSE] {
        for length in [126, 127, 65_535, LIMIT] {
            let sent = frame(FIN | kind, &vec![b'*'; length]);
            let name = format!("control {kind} of {length} bytes");
            cases.push(Case::new(name, &[sent], Outcome::Closed(1002)));
        }
    }
    let pong = |payload: &[u8]| frame(FIN | PONG, payload);
    let lone = Frame(FIN | PONG, b"ping".to_vec());
    let sent = [pong(b""), pong(b"unasked"), ping(b"ping")];
    cases.push(Case::new("unasked pongs", &sent, Outcome::Lives(vec![lone])));
    let ten: Vec<_> = (0..10).map(|number| vec![number; number as usize]).collect();
    let pongs = ten.iter().map(|payload| Frame(FIN | PONG, payload.clone())).collect();
    let ten: Vec<_> = ten.iter().map(|payload| ping(payload)).collect();
    let case = Case::new("ten pings", &ten, Outcome::Lives(pongs));
    cases.extend([case.chopped(1), case]);
    run(&cases);
}

#[test]
fn reserved_bits_and_reserved_kinds_of_frames_break_the_protocol() {
    let mut cases = Vec::new();
    for bits in 1..8 {
        for kind in [TEXT, BINARY, PING, PONG, CLOSE] {
            let broken = frame(FIN | bits << 4 | kind, b"");
            let case = Case::new(format!("bits {bits}, kind {kind}"), &[broken], Outcome::Closed(1002));
            cases.extend([case.chopped(1), case]);
        }
    }
    for kind in (3..8).chain(11..16) {
        for payload in [&b""[..], b"reserved"] {
            let broken = [text(b"before"), frame(FIN | kind, payload), ping(b"")];
            let case = Case::new(format!("kind {kind}"), &broken, Outcome::Closed(1002));
            cases.extend([case.chopped(1), case]);
        }
    }
    run(&cases);
}

#[test]
fn fragments_are_joined_whatever_comes_between_them() {
    let mut cases = Vec::new();
    for kind in [TEXT, BINARY] {
        let case = |name: &str, parts: &[&[u8]]| {
            Case::new(format!("{name}, kind {kind}"), &fragments(kind, parts), echoes(kind, &parts.concat()))
        };
        let two = case("two", &[b"fragment1", b"fragment2"]);
        cases.extend([two.chopped(1), two]);
        cases.push(case("empty ones", &[b"", b"middle", b"", b""]));
        cases.push(case("only empty ones", &[b"", b"", b""]));
        cases.push(case("1000", &[&b"x"[..]; 1_000]));
        cases.push(case("the limit in all", &[&[b'x'; 1_024][..]; 64]));
        let mut pinged = fragments(kind, &[b"one", b"two", b"three"]);
        pinged.insert(1, ping(b"first"));
        pinged.insert(3, frame(FIN | PONG, b"unasked"));
        pinged.insert(4, ping(b"second"));
        let expected = [(PONG, "first"), (PONG, "second"), (kind, "onetwothree")];
        let expected = expected.map(|(kind, text)| Frame(FIN | kind, text.into())).to_vec();
        let pinged = Case::new("pings between", &pinged, Outcome::Lives(expected));
        cases.extend([pinged.chopped(1), pinged]);
    }
    run(&cases);
}

#[test]
fn fragments_that_do_not_belong_together_break_the_protocol() {
    let first = frame(TEXT, b"first");
    let (more, last) = (frame(CONTINUATION, b"more"), frame(FIN | CONTINUATION, b"last"));
    let broken = [
        ("a continuation of nothing", vec![last.clone()]),
        ("an open continuation of nothing", vec![more.clone()]),
        ("a continuation after the last", vec![first.clone(), last.clone(), last.clone()]),
        ("an open one after a whole message", vec![text(b"whole"), more]),
        ("a whole message between", vec![first.clone(), text(b"whole"), last.clone()]),
        ("a binary message between", vec![first.clone(), frame(FIN | BINARY, b"whole"), last.clone()]),
        ("a first one between", vec![first.clone(), first, last]),
        ("a ping in fragments", vec![frame(PING, b"pi"), frame(FIN | CONTINUATION, b"ng")]),
        ("a pong in fragments", vec![frame(PONG, b"po"), frame(FIN | CONTINUATION, b"ng")]),
        ("a close in fragments", vec![frame(CLOSE, &1000_u16.to_be_bytes())]),
        ("an empty close in fragments", vec![frame(CLOSE, b"")]),
    ];
    let cases = broken.map(|(name, frames)| Case::new(name, &frames, Outcome::Closed(1002)));
    run(&cases.each_ref().map(|case| case.chopped(1)));
    run(&cases);
}

#[test]
fn texts_are_utf_8_wherever_they_are_cut() {
    let valid = [
        "κόσμε",
        "Hello-µ@ßöäüàá-UTF-8!!",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "\u{d7ff}\u{e000}\u{fffd}\u{fffe}\u{1fffe}\u{fdd0}",
        "\u{feff}🦀\0",
    ];
    let mut cases = Vec::new();
    for valid in valid.map(str::as_bytes) {
        let whole = Case::new(format!("{valid:x?}"), &[text(valid)], echoes(TEXT, valid));
        cases.extend([whole.chopped(1), whole]);
        for cut in 0..=valid.len() {
            let parts = fragments(TEXT, &[&valid[..cut], &valid[cut..]]);
            cases.push(Case::new(format!("{valid:x?} cut at {cut}"), &parts, echoes(TEXT, valid)));
        }
        let single: Vec<&[u8]> = valid.chunks(1).collect();
        cases.push(Case::new(format!("{valid:x?} cut up"), &fragments(TEXT, &single), echoes(TEXT, valid)));
    }
    run(&cases);
}

/// Sequences that are not UTF-8, by class.
const NOT_UTF_8: [(&str, &[u8]); 18] = [
    ("a lone continuation byte", b"\x80"),
    ("continuation bytes", b"\x80\xbf\x80\xbf"),
    ("a lone first byte of two", b"\xc3 "),
    ("a lone first byte of three", b"\xe2 "),
    ("a lone first byte of four", b"\xf0 "),
    ("two of three bytes", b"\xe2\x82 "),
    ("three of four bytes", b"\xf0\x9f\xa6 "),
    ("cut at the end", b"\xce\xba\xe1\xbd"),
    ("impossible bytes", b"\xfe\xfe\xff\xff"),
    ("overlong in two", b"\xc0\xaf"),
    ("overlong in three", b"\xe0\x80\xaf"),
    ("overlong in four", b"\xf0\x80\x80\xaf"),
    ("overlong in six", b"\xfc\x80\x80\x80\x80\xaf"),
    ("overlong zero", b"\xc0\x80"),
    ("a high surrogate", b"\xed\xa0\x80"),
    ("a pair of surrogates", b"\xed\xa0\x80\xed\xb0\x80"),
    ("above the last", b"\xf4\x90\x80\x80"),
    ("five bytes", b"\xf8\x88\x80\x80\x80"),
];

#[test]
fn what_is_not_utf_8_is_refused_in_texts_and_in_reasons_and_welcome_in_binaries() {
    let mut cases = Vec::new();
    for (name, bad) in NOT_UTF_8 {
        let text = |payload: &[u8]| Case::new(name, &[text(payload)], Outcome::Closed(1007));
        let whole = text(bad);
        cases.extend([whole.chopped(1), whole, text(&[b"before ", bad, b" after"].concat())]);
        for cut in 0..=bad.len() {
            let parts = fragments(TEXT, &[&bad[..cut], &bad[cut..]]);
            cases.push(Case::new(format!("{name}, cut at {cut}"), &parts, Outcome::Closed(1007)));
        }
        cases.push(Case::new(format!("binary: {name}"), &[frame(FIN | BINARY, bad)], echoes(BINARY, bad)));
        cases.push(Case::new(format!("ping: {name}"), &[ping(bad)], echoes(PONG, bad)));
        // The frame parser tells such a reason and a code that must not be sent as the same fault.
        cases.push(Case::new(format!("reason: {name}"), &[close(1000, bad)], Outcome::Closed(1002)));
    }
    run(&cases);
}

#[test]
fn a_text_in_fragments_is_refused_with_the_first_that_cannot_be_utf_8() {
    // No last fragment ever comes.
    let cases = NOT_UTF_8.iter().filter(|(name, _)| !name.starts_with("cut")).map(|(name, bad)| {
        let sent = [frame(TEXT, "κόσμε".as_bytes()), frame(CONTINUATION, bad)];
        Case::new(*name, &sent, Outcome::Closed(1007))
    });
    run(&cases.collect::<Vec<_>>());
}

#[test]
fn a_close_is_answered_with_its_code_when_that_may_be_sent() {
    let mut cases = vec![
        Case::new("empty", &[frame(FIN | CLOSE, b"")], Outcome::ClosedBare),
        Case::new("one byte", &[frame(FIN | CLOSE, b"a")], Outcome::Closed(1002)),
        Case::new("the longest reason", &[close(1000, &[b'*'; 123])], Outcome::Closed(1000)),
        Case::new("too long a reason", &[close(1000, &[b'*'; 124])], Outcome::Closed(1002)),
        Case::new("a reason", &[close(1000, "κόσμε".as_bytes())], Outcome::Closed(1000)),
        Case::new("a ping after it", &[close(1000, b""), ping(b"late")], Outcome::Closed(1000)),
        Case::new("a text after it", &[close(1000, b""), text(b"late")], Outcome::Closed(1000)),
        Case::new("twice", &[close(1000, b""), close(3000, b"")], Outcome::Closed(1000)),
        Case::new("garbage after it", &[close(1000, b""), vec![0xff; 64]], Outcome::Closed(1000)),
        Case::new("within a message", &[frame(TEXT, b"begun"), close(1001, b"")], Outcome::Closed(1001)),
    ];
    let valid = (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4429, 4999]);
    cases.extend(valid.map(|code| Case::new(format!("{code}"), &[close(code, b"")], Outcome::Closed(code))));
    let invalid = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535].into_iter();
    cases.extend(
        invalid.map(|code| Case::new(format!("{code}"), &[close(code, b"why")], Outcome::Closed(1002))),
    );
    let chopped: Vec<_> = cases.iter().map(|case| case.chopped(1)).collect();
    run(&cases);
    run(&chopped);
}

#[test]
fn frames_without_a_mask_break_the_protocol() {
    let kinds = [TEXT, BINARY, PING, PONG, CLOSE];
    let bare = kinds.map(|kind| Case::new(format!("{kind}"), &[vec![FIN | kind, 0]], Outcome::Closed(1002)));
    run(&bare);
    let text = [&[FIN | TEXT, 5][..], b"hello"].concat();
    run(&[Case::new("a text", &[text], Outcome::Closed(1002))]);
}

#[test]
fn what_is_too_large_is_refused_by_what_it_states_before_it_comes() {
    let mut cases = Vec::new();
    for kind in [TEXT, BINARY] {
        for length in [LIMIT as u64 + 1, 1 << 20, 1 << 32, 1 << 40, 1 << 62, 1 << 63, u64::MAX] {
            // Nothing but the header is ever sent.
            let stated = header(FIN | kind, length);
            let case = Case::new(format!("{length} stated, kind {kind}"), &[stated], Outcome::Closed(1009));
            cases.extend([case.chopped(1), case]);
        }
        let beyond = frame(FIN | kind, &vec![b'*'; LIMIT + 1]);
        cases.push(Case::new("one byte too many", &[beyond], Outcome::Closed(1009)));
        let two = fragments(kind, &[&[b'*'; LIMIT], b"*"]);
        cases.push(Case::new("one byte too many in two", &two, Outcome::Closed(1009)));
        let many = fragments(kind, &[&b"x"[..]; 1_001]);
        cases.push(Case::new("1001 fragments", &many, Outcome::Closed(1009)));
        let empty = vec![frame(CONTINUATION, b""); 1_000];
        let endless = [vec![frame(kind, b"")], empty].concat();
        cases.push(Case::new("empty fragments without end", &endless, Outcome::Closed(1009)));
    }
    run(&cases);
}

#[test]
fn a_close_arrives_though_the_client_still_sends() {
    let megabytes = vec![b'*'; 8 << 20];
    run(&[
        Case::new("too large", &[frame(FIN | BINARY, &megabytes)], Outcome::Closed(1009)),
        Case::new("no mask", &[vec![FIN | TEXT, 0], megabytes], Outcome::Closed(1002)),
    ]);
}

#[test]
fn messages_come_back_whole_on_socket_after_socket() {
    // As Autobahn's 10.1 and more of it.
    for length in [0, 16, 256, 4_096, LIMIT] {
        let payload = vec![b'*'; length];
        let parts: Vec<&[u8]> = if length == 0 { vec![b""] } else { payload.chunks(1_300).collect() };
        let fragmented = fragments(BINARY, &parts);
        let case = Case::new(format!("{length} in 1300s"), &fragmented, echoes(BINARY, &payload));
        run(&vec![case; 40]);
    }
}
