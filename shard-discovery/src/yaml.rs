//! YAML as a tree of texts with their places.
//!
//! A scalar is its text: `redis_auth: 00123`, `null` and `1e5` are passwords as written. Libraries that read YAML into
//! values lose that, and most of them the places too; so this is built from the events of saphyr-parser, which is kept
//! up, follows YAML 1.2 and gives every event its place. Anchors and tags are refused: a configuration has no use for
//! them, and with them a short file can mean an endless one.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use crate::mistake::{Mistake, Place};

/// Deeper nesting than any configuration has.
const DEPTH_MAX: usize = 16;
/// A file larger than this is no configuration.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// A YAML value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A text as written.
    Text(String),
    /// Nothing was written behind the colon or the dash.
    Nothing,
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

impl Value {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Nothing => "nothing",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads the one document of a file.
///
/// # Errors
/// The first mistake.
pub fn parse(text: &str) -> Result<Node, Mistake> {
    if text.len() > BYTES_MAX {
        return Err(mistake(Place::START, format!("the file is larger than {BYTES_MAX} bytes")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(at) = text.find('\0') {
        return Err(mistake(place_of(text, at), "the file contains a NUL byte"));
    }
    let mut tree = Tree { events: Parser::new_from_str(text) };
    let document = loop {
        match tree.next()? {
            (Event::DocumentStart(_), span) => {
                let event = tree.next()?;
                let node = tree.node(event, 0)?;
                break (node, span);
            }
            (Event::StreamEnd, _) => {
                return Err(mistake(Place::START, "the file is empty"));
            }
            _ => {}
        }
    };
    loop {
        match tree.next()? {
            (Event::DocumentStart(_), span) => {
                return Err(mistake(
                    place(span),
                    "a second document begins here; a configuration is one document",
                ));
            }
            (Event::StreamEnd, _) => return Ok(document.0),
            _ => {}
        }
    }
}

struct Tree<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
}

impl<'t> Tree<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Mistake> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(scan_mistake(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, (event, span): (Event<'t>, Span), depth: usize) -> Result<Node, Mistake> {
        let place = place(span);
        if depth > DEPTH_MAX {
            return Err(mistake(place, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(anchor, tag)
            | Event::MappingStart(anchor, tag) => (*anchor > 0, tag.is_some()),
            Event::Alias(_) => (true, false),
            _ => (false, false),
        };
        if anchor {
            return Err(mistake(
                place,
                "anchors and aliases (& and *) are not supported; write the value out, in quotes if it begins with & or *",
            ));
        }
        if tag {
            return Err(mistake(
                place,
                "tags (!) are not supported; put the value in quotes if it begins with !",
            ));
        }
        let value = match event {
            // What YAML calls null has a text as well: nutcracker takes ~ for a password.
            Event::Scalar(text, ScalarStyle::Plain, _, _) if text.is_empty() => Value::Nothing,
            Event::Scalar(text, _, _, _) => Value::Text(text.into_owned()),
            Event::SequenceStart(..) => Value::List(self.list(depth)?),
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            _ => return Err(mistake(place, "a value is missing here")),
        };
        Ok(Node { place, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Mistake> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(list),
                event => list.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Mistake> {
        let mut map: Vec<Entry> = Vec::new();
        loop {
            let event = match self.next()? {
                (Event::MappingEnd, _) => return Ok(map),
                event => event,
            };
            let key = self.node(event, depth + 1)?;
            let place = key.place;
            let Value::Text(key) = key.value else {
                return Err(mistake(place, format!("a key has to be a string, not {}", key.value.kind())));
            };
            let event = self.next()?;
            let node = self.node(event, depth + 1)?;
            map.push(Entry { key, place, node });
        }
    }
}

fn place(span: Span) -> Place {
    Place { line: span.start.line().max(1), column: span.start.col() + 1 }
}

fn place_of(text: &str, at: usize) -> Place {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

fn scan_mistake(error: &ScanError) -> Mistake {
    let place = Place { line: error.marker().line().max(1), column: error.marker().col() + 1 };
    mistake(place, format!("not YAML: {}", error.info()))
}

fn mistake(place: Place, text: impl Into<String>) -> Mistake {
    Mistake { place, text: text.into() }
}
