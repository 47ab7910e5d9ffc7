//! The parser of matchers: tokens, escapes as Go writes them, and errors that name a correction.
//!
//! Invariant: it never panics, whatever the text, and an accepted text prints as a text that parses to the same.

use super::{MatchOperator, Matcher, MatcherError};
use crate::limits;

/// Parses one matcher or a comma-separated list, with or without braces. Empty and `{}` are the empty list.
///
/// # Errors
///
/// Fails when the text is longer than `MATCHER_BYTES`, or is not a list of matchers; the error has the place and a
/// correction.
pub fn parse_matchers(text: &str) -> Result<Vec<Matcher>, MatcherError> {
    if text.len() > limits::MATCHER_BYTES {
        let shown: String = text.chars().take(40).collect();
        return Err(MatcherError {
            text: format!("{shown}…"),
            at: 0,
            what: format!("{} bytes of matchers", text.len()),
            hint: format!("write at most {} bytes, or split it into several lines", limits::MATCHER_BYTES),
        });
    }
    MatcherParser { text, rest: text, at: 0 }.list()
}

/// Characters that a bare name or value cannot hold; they need quotes.
pub(super) fn is_reserved(c: char) -> bool {
    c.is_whitespace() || matches!(c, '{' | '}' | '!' | '=' | '~' | ',' | '\\' | '"' | '\'' | '`')
}

#[derive(Debug, PartialEq)]
enum MatcherToken {
    Open,
    Close,
    Comma,
    Op(MatchOperator),
    Text(String),
    End,
}

impl MatcherToken {
    fn words(&self) -> String {
        match self {
            MatcherToken::Open => "unexpected `{`".to_owned(),
            MatcherToken::Close => "unexpected `}`".to_owned(),
            MatcherToken::Comma => "unexpected `,`".to_owned(),
            MatcherToken::Op(op) => format!("unexpected `{}`", op.sign()),
            MatcherToken::Text(text) => format!("unexpected `{text}`"),
            MatcherToken::End => "unexpected end".to_owned(),
        }
    }
}

struct MatcherParser<'a> {
    text: &'a str,
    rest: &'a str,
    /// Characters eaten so far.
    at: usize,
}

impl MatcherParser<'_> {
    fn list(mut self) -> Result<Vec<Matcher>, MatcherError> {
        let mut found = Vec::new();
        let (mut at, mut token) = self.next()?;
        let braced = token == MatcherToken::Open;
        if braced {
            (at, token) = self.next()?;
        }
        loop {
            match token {
                MatcherToken::Text(name) => found.push(self.matcher(at, name)?),
                end => return self.finish(at, end, braced, found),
            }
            (at, token) = self.next()?;
            if token != MatcherToken::Comma {
                return self.finish(at, token, braced, found);
            }
            (at, token) = self.next()?;
        }
    }

    /// Parses the end after the last matcher: the closing brace, if one was opened, and then nothing.
    fn finish(
        &mut self,
        at: usize,
        token: MatcherToken,
        braced: bool,
        found: Vec<Matcher>,
    ) -> Result<Vec<Matcher>, MatcherError> {
        match (token, braced) {
            (MatcherToken::End, false) => Ok(found),
            (MatcherToken::Close, true) => match self.next()? {
                (_, MatcherToken::End) => Ok(found),
                (at, more) => Err(self.error(at, more.words(), "remove the text after the closing brace")),
            },
            (MatcherToken::End, true) => Err(self.error(at, "the text ends".to_owned(), "close the brace with `}`")),
            (MatcherToken::Close, false) => {
                Err(self.error(at, "unexpected `}`".to_owned(), "no brace was opened: remove it, or start with `{`"))
            }
            (other @ MatcherToken::Text(_), _) => Err(self.error(
                at,
                other.words(),
                "put a comma between two matchers, and quotes around a value with spaces",
            )),
            (other, _) if found.is_empty() || other == MatcherToken::Comma => {
                Err(self.error(at, other.words(), "a label name is expected here, as in `alertname=\"GpuXid\"`"))
            }
            (other, _) => Err(self.error(at, other.words(), "a comma or the end is expected after a matcher")),
        }
    }

    /// The rest of one matcher, after its name.
    fn matcher(&mut self, name_at: usize, name: String) -> Result<Matcher, MatcherError> {
        if name.is_empty() {
            return Err(self.error(name_at, "an empty label name".to_owned(), "name the label before the operator"));
        }
        let (op_at, op) = self.next()?;
        let MatcherToken::Op(op) = op else {
            return Err(self.error(op_at, op.words(), "an operator is expected: `=`, `!=`, `=~` or `!~`"));
        };
        let (value_at, value) = self.next()?;
        let MatcherToken::Text(value) = value else {
            return Err(self.error(value_at, value.words(), "a value is expected; write `\"\"` for a missing label"));
        };
        let regex = match op {
            MatchOperator::Equal | MatchOperator::NotEqual => None,
            MatchOperator::Like | MatchOperator::Unlike => Some(self.compile(value_at, &value)?),
        };
        Ok(Matcher { name, op, value, regex })
    }

    fn compile(&self, at: usize, value: &str) -> Result<regex::Regex, MatcherError> {
        anchored(value).map_err(|error| {
            let what = match &error {
                regex::Error::CompiledTooBig(limit) => {
                    format!("the regular expression needs more than {limit} bytes when compiled")
                }
                // The crate draws a picture of several lines; its last line has the error.
                other => {
                    let text = other.to_string();
                    let last = text.lines().last().unwrap_or_default();
                    format!("bad regular expression ({})", last.trim_start_matches("error: "))
                }
            };
            self.error(at, what, "RE2 syntax is meant, without look-around and back references")
        })
    }

    /// The next token and where it begins.
    fn next(&mut self) -> Result<(usize, MatcherToken), MatcherError> {
        while self.rest.starts_with(char::is_whitespace) {
            self.eat();
        }
        let at = self.at;
        let Some(c) = self.peek() else { return Ok((at, MatcherToken::End)) };
        let token = match c {
            '{' => self.single(MatcherToken::Open),
            '}' => self.single(MatcherToken::Close),
            ',' => self.single(MatcherToken::Comma),
            '=' => {
                self.eat();
                MatcherToken::Op(if self.eat_if('~') { MatchOperator::Like } else { MatchOperator::Equal })
            }
            '!' => {
                self.eat();
                match self.peek() {
                    Some('=') => self.single(MatcherToken::Op(MatchOperator::NotEqual)),
                    Some('~') => self.single(MatcherToken::Op(MatchOperator::Unlike)),
                    _ => return Err(self.error(at, "`!` alone".to_owned(), "write `!=` or `!~`")),
                }
            }
            '"' => MatcherToken::Text(self.quoted(at)?),
            '~' => return Err(self.error(at, "`~` alone".to_owned(), "write `=~` or `!~`")),
            '\'' | '`' => {
                return Err(self.error(at, format!("unexpected {c}"), "only double quotes enclose a name or a value"));
            }
            '\\' => {
                return Err(self.error(at, "a backslash outside quotes".to_owned(), "put the name or value in quotes"));
            }
            _ => {
                let end = self.rest.find(is_reserved).unwrap_or(self.rest.len());
                let (bare, rest) = self.rest.split_at(end);
                self.rest = rest;
                self.at += bare.chars().count();
                MatcherToken::Text(bare.to_owned())
            }
        };
        Ok((at, token))
    }

    /// A quoted text with Go's escapes, after which it must be UTF-8 again.
    fn quoted(&mut self, start: usize) -> Result<String, MatcherError> {
        self.eat();
        let mut bytes = Vec::new();
        loop {
            let at = self.at;
            match self.eat() {
                None => {
                    return Err(self.error(start, "a quote that is not closed".to_owned(), "end the text with `\"`"));
                }
                Some('"') => break,
                Some('\n') => {
                    return Err(self.error(at, "a line break within quotes".to_owned(), "write it as `\\n`"));
                }
                Some('\\') => self.escape(at, &mut bytes)?,
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(bytes).map_err(|_| {
            self.error(start, "escaped bytes that are not UTF-8".to_owned(), "write the characters as they are")
        })
    }

    fn escape(&mut self, at: usize, bytes: &mut Vec<u8>) -> Result<(), MatcherError> {
        let c = self.eat();
        let plain = match c {
            Some('\\') => b'\\',
            Some('"') => b'"',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('r') => b'\r',
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('v') => 0x0b,
            Some('x') => return self.byte(at, 2, 16, 0, bytes),
            Some(digit @ '0'..='7') => return self.byte(at, 2, 8, u32::from(digit) - u32::from('0'), bytes),
            Some(kind @ ('u' | 'U')) => {
                let code = self.number(at, if kind == 'u' { 4 } else { 8 }, 16, 0)?;
                let c = char::from_u32(code).ok_or_else(|| {
                    self.error(at, "an escape that is no character".to_owned(), "write the character as it is")
                })?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            Some(other) => {
                let what = format!("the unknown escape `\\{other}`");
                return Err(self.error(at, what, "write `\\\\` for one backslash, also in regular expressions"));
            }
            None => {
                return Err(self.error(at, "a backslash at the end".to_owned(), "end the text with `\"`"));
            }
        };
        bytes.push(plain);
        Ok(())
    }

    fn byte(
        &mut self,
        at: usize,
        digits: u32,
        radix: u32,
        first: u32,
        bytes: &mut Vec<u8>,
    ) -> Result<(), MatcherError> {
        let number = self.number(at, digits, radix, first)?;
        let byte = u8::try_from(number)
            .map_err(|_| self.error(at, format!("the escape of {number}"), "a byte is at most `\\377` or `\\xff`"))?;
        bytes.push(byte);
        Ok(())
    }

    fn number(&mut self, at: usize, digits: u32, radix: u32, first: u32) -> Result<u32, MatcherError> {
        let mut number = first;
        for _ in 0..digits {
            let digit = self.peek().and_then(|c| c.to_digit(radix)).ok_or_else(|| {
                self.error(at, "an escape with too few digits".to_owned(), "as in `\\x1f`, `\\037`, `\\u00e9`")
            })?;
            self.eat();
            // At most eight hexadecimal digits, which a u32 holds.
            number = number.wrapping_mul(radix).wrapping_add(digit);
        }
        Ok(number)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn eat(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.at += 1;
        Some(c)
    }

    fn eat_if(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.eat();
        }
        there
    }

    fn single(&mut self, token: MatcherToken) -> MatcherToken {
        self.eat();
        token
    }

    fn error(&self, at: usize, what: String, hint: &str) -> MatcherError {
        MatcherError { text: self.text.to_owned(), at, what, hint: hint.to_owned() }
    }
}

/// A regular expression that must match a text as a whole, within our bounds.
pub(in crate::policy) fn anchored(pattern: &str) -> Result<regex::Regex, regex::Error> {
    // Alone first, so that `a)|(b` cannot break out of the anchors.
    build(pattern).and_then(|_| build(&format!("^(?:{pattern})$")))
}

fn build(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES).dfa_size_limit(limits::REGEX_BYTES).build()
}
