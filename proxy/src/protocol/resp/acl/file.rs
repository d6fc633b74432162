//! The file of users, in the syntax of Redis' own: a line for each, `user NAME RULE ...`.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>. What a server refuses is refused here, so that
//! one file can serve the proxy and its shards.

use std::collections::HashSet;
use std::sync::Arc;

use super::rules::RuleError;
use super::user::{Selector, User, WordError};

/// Users that a file may have.
pub const USERS_MAX: usize = 10_000;
/// The name of the user that clients are before they say who they are.
pub const DEFAULT: &str = "default";

/// All users, by name.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Users {
    users: Vec<Arc<User>>,
}

/// What is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// In this line, from 1 on.
    pub line: usize,
    /// In this word of it, from 1 on; none where it is the whole line.
    pub word: Option<usize>,
    /// The word, unless it may be a password.
    pub shown: Option<String>,
    /// What is wrong.
    pub text: String,
    /// It is about a name that is none of [`super::rules::names`].
    pub is_name: bool,
}

impl Users {
    /// Reads a file.
    ///
    /// # Errors
    /// All that is wrong with it; there is at least one mistake then.
    pub fn read(text: &str) -> Result<Self, Vec<Mistake>> {
        let (mut users, mut mistakes): (Vec<Arc<User>>, _) = (Vec::new(), Vec::new());
        let mut names = HashSet::new();
        for (place, line) in text.split('\n').enumerate() {
            let line = Line { number: place + 1, words: words(line) };
            if line.words.is_empty() {
                continue;
            }
            match line.user() {
                Ok(user) if !names.insert(user.name.clone()) => {
                    mistakes.push(line.mistake(Some(2), format!("the user {:?} is there twice", user.name)));
                }
                Ok(_) if users.len() == USERS_MAX => {
                    mistakes.push(line.mistake(None, format!("a file may have {USERS_MAX} users")));
                    break;
                }
                Ok(user) => users.push(Arc::new(user)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        users.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { users })
    }

    /// The user of this name.
    pub fn find(&self, name: &[u8]) -> Option<&Arc<User>> {
        let found = self.users.binary_search_by(|user| user.name.as_bytes().cmp(name));
        found.ok().map(|place| &self.users[place])
    }

    /// All of them, by name.
    pub fn all(&self) -> &[Arc<User>] {
        &self.users
    }

    /// Memory they hold.
    pub fn bytes(&self) -> usize {
        self.users.iter().map(|user| user.bytes()).sum()
    }
}

/// The words of a line, each with its place from 1 on: what stands in parentheses is one.
fn words(line: &str) -> Vec<(usize, String)> {
    let parts = line.split([' ', '\t', '\r']).filter(|word| !word.is_empty());
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (place, part) in parts.enumerate() {
        match found.last_mut() {
            Some((_, open)) if is_open => {
                open.push(' ');
                open.push_str(part);
                is_open = !part.ends_with(')');
            }
            _ => {
                is_open = part.starts_with('(') && !part.ends_with(')');
                found.push((place + 1, part.to_owned()));
            }
        }
    }
    found
}

struct Line {
    number: usize,
    words: Vec<(usize, String)>,
}

impl Line {
    fn mistake(&self, word: Option<usize>, text: String) -> Mistake {
        Mistake { line: self.number, word, shown: None, text, is_name: false }
    }

    fn user(&self) -> Result<User, Mistake> {
        let [(_, first), (_, name), rules @ ..] = &self.words[..] else {
            return Err(self.mistake(None, "it has to be: user NAME RULE ...".into()));
        };
        if first != "user" {
            let text = "a line begins with the word user; comments are no part of the format";
            return Err(self.mistake(Some(1), text.into()));
        }
        if name.contains('\0') {
            return Err(self.mistake(Some(2), "a name has no NUL".into()));
        }
        let mut user = User::new(name);
        for (place, word) in rules {
            match word.strip_prefix('(') {
                Some(inner) => {
                    let Some(inner) = inner.strip_suffix(')') else {
                        return Err(self.mistake(Some(*place), "the parenthesis is not closed".into()));
                    };
                    let mut selector = Selector::default();
                    for word in inner.split(' ').filter(|word| !word.is_empty()) {
                        selector.add(word).map_err(|error| self.wrong(*place, word, &error))?;
                    }
                    user.selectors.push(selector);
                }
                None => user.add(word).map_err(|error| self.wrong(*place, word, &error))?,
            }
        }
        Ok(user)
    }

    fn wrong(&self, place: usize, word: &str, error: &WordError) -> Mistake {
        // All others may be, or have, a password.
        let is_open = word.starts_with(['+', '-', '~', '%', '&', '@']) || word.starts_with("db=");
        let (text, is_name) = match error {
            WordError::Other(text) => ((*text).to_owned(), false),
            WordError::Command(error) => (error.to_string(), *error != RuleError::NoRule),
        };
        let shown = is_open.then(|| word.to_owned());
        Mistake { line: self.number, word: Some(place), shown, text, is_name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::resp::acl::password::Hash;
    use crate::protocol::resp::acl::user::Denied;
    use crate::protocol::resp::command::index::lookup;

    fn one(rules: &str) -> Arc<User> {
        let users =
            Users::read(&format!("user u on {rules}")).unwrap_or_else(|wrong| panic!("{rules}: {wrong:?}"));
        users.users[0].clone()
    }

    fn judge(user: &User, request: &str) -> Result<(), Denied> {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let row = lookup(words[0]).expect("a row");
        let row = words.get(1).and_then(|word| row.subcommand(word)).unwrap_or(row);
        user.check(row, words.len(), |place| words[place])
    }

    #[test]
    fn keys_are_judged_by_what_becomes_of_them() {
        let user = one("~app:* %R~ro:* %W~wo:* +@all -flushall");
        for (request, verdict) in [
            ("get app:1", Ok(())),
            ("get ro:1", Ok(())),
            ("get wo:1", Err(Denied::Key(1))),
            ("get other", Err(Denied::Key(1))),
            ("set ro:1 v", Err(Denied::Key(1))),
            ("set wo:1 v", Ok(())),
            ("set wo:1 v EX 1", Ok(())),
            ("set wo:1 v GET", Err(Denied::Key(1))),
            ("set app:1 v get", Ok(())),
            ("exists wo:1 ro:1 app:1", Ok(())),
            ("exists wo:1 x", Err(Denied::Key(2))),
            ("mset app:1 v ro:1 v", Err(Denied::Key(3))),
            ("mset app:1 ro:1 app:2 ro:2", Ok(())),
            ("copy ro:1 wo:1", Ok(())),
            ("copy wo:1 ro:1", Err(Denied::Key(1))),
            ("copy ro:1 ro:2", Err(Denied::Key(2))),
            ("rename app:1 wo:1", Ok(())),
            ("rename ro:1 wo:1", Err(Denied::Key(1))),
            ("bitop and wo:1 ro:1 ro:2", Ok(())),
            ("bitop and wo:1 ro:1 wo:2", Err(Denied::Key(4))),
            ("bitfield ro:1 GET u4 0", Ok(())),
            ("bitfield ro:1 SET u4 0 1", Err(Denied::Key(1))),
            ("bitfield wo:1 SET u4 0 1", Err(Denied::Key(1))),
            ("sort ro:1 STORE wo:1", Ok(())),
            ("sort ro:1 STORE ro:2", Err(Denied::Key(3))),
            ("sort ro:1 BY w_*", Err(Denied::Pattern("BY"))),
            ("sort app:1 BY nosort", Ok(())),
            ("eval s 1 ro:1", Err(Denied::Key(3))),
            ("eval_ro s 1 ro:1", Ok(())),
            ("eval s 0 ro:1", Ok(())),
            ("zunionstore wo:1 2 ro:1 app:1", Ok(())),
            ("zunionstore wo:1 2 ro:1 wo:2", Err(Denied::Key(4))),
            ("georadius ro:1 0 0 1 m STORE wo:1", Ok(())),
            ("georadius ro:1 0 0 1 m STORE ro:1", Err(Denied::Key(7))),
            ("xread STREAMS ro:1 wo:1 0 0", Err(Denied::Key(3))),
            ("flushall", Err(Denied::Command)),
            ("config get x", Ok(())),
        ] {
            assert_eq!(judge(&user, request), verdict, "{request}");
        }
        assert_eq!(judge(&one("allkeys +sort"), "sort k BY w_* GET x_*"), Ok(()));
        assert_eq!(judge(&one("%R~* +sort"), "sort k BY w_* GET x_*"), Ok(()));
    }

    #[test]
    fn channels_are_judged_by_their_patterns() {
        let user = one("&ev:* &exact +@pubsub");
        for (request, verdict) in [
            ("subscribe ev:1 exact", Ok(())),
            ("subscribe ev:1 other", Err(Denied::Channel(2))),
            ("ssubscribe ev:1", Ok(())),
            ("psubscribe ev:*", Ok(())),
            ("psubscribe ev:1*", Err(Denied::Channel(1))),
            ("psubscribe ev:1", Err(Denied::Channel(1))),
            ("publish ev:1 x", Ok(())),
            ("publish other ev:1", Err(Denied::Channel(1))),
            ("spublish other ev:1", Err(Denied::Channel(1))),
            ("unsubscribe other", Ok(())),
            ("pubsub numsub other", Ok(())),
        ] {
            assert_eq!(judge(&user, request), verdict, "{request}");
        }
        assert!(user.may_listen(Kind::Channel, b"ev:1") && !user.may_listen(Kind::Pattern, b"ev:1"));
    }

    use crate::protocol::channels::Kind;

    #[test]
    fn one_selector_has_to_allow_all_of_it() {
        let user = one("+get ~a:* (+set ~b:* &c) (%R~* +mget)");
        for (request, verdict) in [
            ("get a:1", Ok(())),
            ("set b:1 v", Ok(())),
            ("set a:1 v", Err(Denied::Key(1))),
            ("get b:1", Err(Denied::Key(1))),
            ("mget a b c", Ok(())),
            ("del a:1", Err(Denied::Command)),
            ("auth x", Ok(())),
        ] {
            assert_eq!(judge(&user, request), verdict, "{request}");
        }
    }

    #[test]
    fn a_line_is_written_as_it_was_read() {
        let hash = Hash::of(b"pw").expect("a hash").digits();
        for (rules, written) in [
            ("nopass ~* &* +@all", "user u on nopass ~* &* +@all".to_owned()),
            (">pw", format!("user u on #{hash} resetchannels -@all")),
            (
                "~app:* >pw %R~ro:* &ev:* +@read +config|get (+set ~b:* %W~c:*)",
                format!(
                    "user u on #{hash} ~app:* %R~ro:* resetchannels &ev:* -@all +@read +config|get (~b:* %W~c:* \
                     resetchannels -@all +set)"
                ),
            ),
            ("reset on allkeys allchannels allcommands", "user u on ~* &* +@all".to_owned()),
            (">a resetpass nopass >pw", format!("user u on #{hash} resetchannels -@all")),
            (">pw nopass", "user u on nopass resetchannels -@all".to_owned()),
            ("%RW~a %R~b %W~b", "user u on ~a ~b resetchannels -@all".to_owned()),
            ("(+get) clearselectors  ~a  ~a", "user u on ~a resetchannels -@all".to_owned()),
            ("~a resetkeys &b resetchannels off", "user u off resetchannels -@all".to_owned()),
            (">pw >pw <pw", "user u on resetchannels -@all".to_owned()),
        ] {
            let user = one(rules);
            assert_eq!(user.to_string(), written);
            let again = Users::read(&written).expect("it can be read");
            assert_eq!(again.users[0], user);
        }
    }

    #[test]
    fn mistakes_have_a_place_and_show_no_password() {
        for (text, line, word, shown, part) in [
            ("user a on >pw +gett", 1, Some(5), Some("+gett"), "no such command"),
            ("\nuser a on secretpw", 2, Some(4), None, "no rule"),
            ("user a #secretpw", 1, Some(3), None, "64 hexadecimal"),
            ("user a <secretpw", 1, Some(3), None, "does not have"),
            ("user a ~* ~b", 1, Some(4), Some("~b"), "resetkeys"),
            ("user a &* &b", 1, Some(4), Some("&b"), "resetchannels"),
            ("user a %X~b", 1, Some(3), Some("%X~b"), "%RW~"),
            ("user a %R", 1, Some(3), Some("%R"), "%RW~"),
            ("user a (+get", 1, Some(3), None, "not closed"),
            ("user a (+get >pw)", 1, Some(3), None, "no rule"),
            ("user a db=1,2", 1, Some(3), Some("db=1,2"), "databases"),
            ("user a +@reed", 1, Some(3), Some("+@reed"), "category"),
            ("users a on", 1, Some(1), None, "the word user"),
            ("# comment here", 1, Some(1), None, "comments"),
            ("user", 1, None, None, "user NAME"),
            ("user a\nuser b\nuser a", 3, Some(2), None, "twice"),
        ] {
            let mistakes = Users::read(text).expect_err(text);
            assert_eq!(mistakes.len(), 1, "{text}");
            let Mistake { line: found, word: place, shown: told, text: why, .. } = &mistakes[0];
            assert_eq!((*found, *place, told.as_deref()), (line, word, shown), "{text}");
            assert!(why.contains(part) && !why.contains("secretpw"), "{text}: {why}");
        }
    }

    #[test]
    fn passwords_let_in_who_is_on() {
        let password = |text: &str| Hash::of(text.as_bytes());
        let user = one(">old >new");
        assert!(user.accepts(password("old").as_ref()) && user.accepts(password("new").as_ref()));
        assert!(!user.accepts(password("other").as_ref()) && !user.accepts(None));
        assert!(one("nopass").accepts(None) && !one("nopass off").accepts(None));
        assert!(!one(">pw off").accepts(password("pw").as_ref()));
        assert!(one("nopass ~* &* +@all").is_unrestricted() && !one("~* +@all").is_unrestricted());
        assert!(one("(allkeys allchannels allcommands)").is_unrestricted());
        assert!(!format!("{:?}", one(">pw")).contains(&Hash::of(b"pw").expect("one").digits()));
    }

    #[test]
    fn any_words_are_read_or_refused() {
        for text in [
            "user \u{fffd} +\u{fffd}",
            "user a (",
            "user a )",
            "user a ()",
            "user a ( )",
            "user a (()",
            "user a %~",
            "user a >",
        ] {
            let _ = Users::read(text);
        }
        let asterisks = format!("user a ~{}x +get", "*a".repeat(5_000));
        let users = Users::read(&asterisks).expect("a pattern");
        assert!(judge(&users.users[0], &format!("get {}", "a".repeat(5_000))).is_err());
    }
}
