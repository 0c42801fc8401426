//! The fuzz targets, each for a bounded while: seeds that are cut, flipped, spliced and spiced, the same ones in each run.

use pointsman::adapters::mcp::fuzz;

mod components;

/// Inputs of a target in one run.
const INPUTS: usize = 60_000;
/// Bytes of an input.
const INPUT_BYTES_MAX: usize = 4_096;

/// A generator whose numbers are the same in each run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap_or(0) % end.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Changes an input in one of the ways that find something.
    fn change(&mut self, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
        let at = self.below(input.len() + 1);
        let end = at + self.below(input.len() - at + 1);
        match self.below(7) {
            0 => drop(input.drain(at..end)),
            1 => drop(input.splice(at..at, self.pick(words).to_vec())),
            2 => drop(input.splice(at..end, self.pick(words).to_vec())),
            3 => {
                let again = input[at..end].to_vec();
                drop(input.splice(at..at, again));
            }
            4 => {
                let from = self.below(other.len() + 1);
                drop(input.splice(at.., other[from..].to_vec()));
            }
            5 if at < input.len() => input[at] ^= 1 << self.below(8),
            _ if at < input.len() => input[at] = u8::try_from(self.below(256)).unwrap_or(0),
            _ => {}
        }
    }
}

fn run(target: fn(&[u8]), seeds: &[&[u8]], words: &[&[u8]]) {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    seeds.iter().for_each(|seed| target(seed));
    for _ in 0..INPUTS {
        let mut input = numbers.pick(seeds).to_vec();
        for _ in 0..=numbers.below(6) {
            let other = numbers.pick(seeds);
            numbers.change(&mut input, other, words);
            input.truncate(INPUT_BYTES_MAX);
        }
        target(&input);
    }
}

#[test]
fn bodies() {
    let seeds: [&[u8]; 6] = [
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":[1,{"y":null}]},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"progressToken":"p"}}}"#,
        br#"{"jsonrpc":"2.0","id":"\u0061\"b","method":"resources/read","params":{"uri":"pointsman://tasks"}}"#,
        br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#,
        br#"{"jsonrpc":"2.0","id":-3,"result":{"action":"accept"}}"#,
        br#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}"#,
        br#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"x"}]"#,
    ];
    let words: [&[u8]; 16] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"1e999",
        b"-0",
        b"\"id\":",
        b"\"\\ud800\"",
        b"\"method\"",
        b"\xef\xbb\xbf",
        b" ",
        b"\0",
        b"\"jsonrpc\":\"2.0\"",
    ];
    run(fuzz::envelope, &seeds, &words);
}

#[test]
fn header_fields() {
    let bearer =
        format!("authorization: Bearer {}\ncontent-type: application/json\naccept: application/json, text/event-stream", fuzz::SECRET);
    let seeds: [&[u8]; 4] = [
        bearer.as_bytes(),
        b"content-type: application/json; charset=\"utf-8\"\naccept: text/*;q=0.5, */*\nmcp-protocol-version: 2026-07-28",
        b"mcp-method: tools/call\nmcp-name: =?base64?Z3LDvMOfZW4=?=\nmcp-param-tone: =?base64?d8O2cm0=?=\nmcp-param-m: 7",
        b"authorization: ${POINTSMAN_TOKEN}\nmcp-session-id: abc\nlast-event-id: 1.2.Nw",
    ];
    let words: [&[u8]; 14] = [
        b"authorization: ",
        b"Bearer ",
        b"Basic ",
        b"${",
        b"\n",
        b"\t",
        b" ",
        b"\"",
        b"=?base64?",
        b"?=",
        b"charset=",
        b";",
        b"\xff",
        fuzz::SECRET.as_bytes(),
    ];
    run(fuzz::headers, &seeds, &words);
}

#[test]
fn event_streams() {
    let seeds: [&[u8]; 4] = [
        b"id: 1.2\ndata: {\"n\":1}\n\ndata: a\ndata: b\r\n\r\n",
        b"\xef\xbb\xbf: alive\n\nretry: 500\nid: 3.4.Nw\ndata: \n\n",
        b"event: message\rdata:{}\r\rid\ndata\n\n",
        b"{\"jsonrpc\":\"2.0\",\n\"id\":1}",
    ];
    let words: [&[u8]; 10] = [b"\n", b"\r", b"\r\n", b"\n\n", b"data: ", b"id: ", b"retry: 99999999999999999999", b":", b"\0", b"\xc3"];
    run(fuzz::events, &seeds, &words);
}

#[test]
fn what_clients_bring_back() {
    let seeds: [&[u8]; 6] = [b"1-7", b"18446744073709551615-0", b"0.1790000000000000", b"3.1790000000000007.Nw", b"YQ", b"b"];
    let words: [&[u8]; 8] = [b"-", b".", b"0", b"18446744073709551616", b"_", b"ImEi", b"\xe2\x82\xac", b"="];
    run(fuzz::cursors, &seeds, &words);
}
