//! Those who may read encrypted recordings.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use age::stream::StreamWriter;
use age::{Encryptor, Recipient, ssh, x25519};

/// Those for whom recordings are encrypted: public keys of age, or of ssh. Cheap to clone.
#[derive(Clone)]
pub struct Recipients(Arc<[Named]>);

struct Named {
    /// The key as text, without a remark behind it.
    text: String,
    key: Box<dyn Recipient + Send + Sync>,
}

impl Recipients {
    /// Reads the texts of `--record-encrypt`: each is a public key (`age1…`, `ssh-ed25519 …`, `ssh-rsa …`) or the
    /// path of a file with one on each line. `None` if there are no texts.
    ///
    /// # Errors
    ///
    /// The message for the operator. It never repeats a secret key.
    pub fn parse(texts: &[String]) -> Result<Option<Self>, String> {
        let mut all = Vec::new();
        for text in texts {
            if is_secret(text) {
                return Err(format!("--record-encrypt: {SECRET}"));
            }
            let refused = |reason: String| format!("--record-encrypt {text}: {reason}");
            if is_key(text) {
                all.push(Named::parse(text).map_err(refused)?);
            } else {
                all.extend(read_file(Path::new(text)).map_err(refused)?);
            }
        }
        if all.len() > RECIPIENTS_MAX {
            return Err(format!("--record-encrypt: {} recipients, {RECIPIENTS_MAX} at most", all.len()));
        }
        Ok((!all.is_empty()).then(|| Self(all.into())))
    }

    /// Their public keys as text.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|named| named.text.as_str())
    }

    /// Encrypts a few bytes for them, as a file of age.
    pub(crate) fn encrypt(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut writer = self.writer(Vec::new())?;
        writer.write_all(plain)?;
        writer.finish()
    }

    /// A file of age for them, written to `output`. It is whole once the writer was told to finish.
    pub(crate) fn writer<W: Write>(&self, output: W) -> io::Result<StreamWriter<W>> {
        let keys = self.0.iter().map(|named| &*named.key as &dyn Recipient);
        Encryptor::with_recipients(keys).map_err(io::Error::other)?.wrap_output(output)
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.texts()).finish()
    }
}

impl Named {
    fn parse(text: &str) -> Result<Self, String> {
        let key: Box<dyn Recipient + Send + Sync> = if text.starts_with(AGE) {
            let key = text.parse::<x25519::Recipient>();
            Box::new(key.map_err(|_| "it is no X25519 public key of age, or mistyped".to_owned())?)
        } else {
            Box::new(text.parse::<ssh::Recipient>().map_err(ssh_error)?)
        };
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        Ok(Self { text: words.join(" "), key })
    }
}

fn ssh_error(error: ssh::ParseRecipientKeyError) -> String {
    use ssh::ParseRecipientKeyError as Error;
    match error {
        Error::RsaModulusTooSmall => "the RSA key is shorter than 2048 bits".to_owned(),
        Error::RsaModulusTooLarge => "the RSA key is longer than 4096 bits".to_owned(),
        Error::Unsupported(kind) => format!("keys of the kind {kind} cannot be used"),
        _ => "it is no public key of ssh that can be used: ssh-ed25519 or ssh-rsa".to_owned(),
    }
}

fn read_file(path: &Path) -> Result<Vec<Named>, String> {
    let text = std::fs::read(path)
        .map_err(|error| format!("it is no public key (age1…, ssh-ed25519 …), and as a file: {error}"))?;
    let text = String::from_utf8(text).map_err(|_| "the file is not text".to_owned())?;
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if is_secret(line) {
            return Err(format!("line {index}: {SECRET}"));
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !is_key(line) {
            return Err(format!("line {index} is no public key: age1…, ssh-ed25519 … or ssh-rsa …"));
        }
        all.push(Named::parse(line).map_err(|reason| format!("line {index}: {reason}"))?);
    }
    if all.is_empty() { Err("the file names nobody".to_owned()) } else { Ok(all) }
}

fn is_key(text: &str) -> bool {
    text.starts_with(AGE) || text.starts_with("ssh-")
}

fn is_secret(text: &str) -> bool {
    text.starts_with("AGE-SECRET-KEY-") || text.starts_with("-----BEGIN ")
}

const AGE: &str = "age1";
/// Each takes room in each file, whose head is bounded.
const RECIPIENTS_MAX: usize = 256;
const SECRET: &str = "this is a secret key, which has no place here: give its public key (age-keygen -y)";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;

    #[test]
    fn each_recipient_can_read() {
        let identities = [x25519::Identity::generate(), x25519::Identity::generate()];
        let texts = identities.each_ref().map(|identity| identity.to_public().to_string());
        let recipients = Recipients::parse(&texts).unwrap().unwrap();
        assert_eq!(recipients.texts().collect::<Vec<_>>(), texts.each_ref());
        let sealed = recipients.encrypt(b"key").unwrap();
        for identity in &identities {
            let decryptor = age::Decryptor::new(&sealed[..]).unwrap();
            let mut plain = Vec::new();
            let mut reader = decryptor.decrypt(std::iter::once(identity as _)).unwrap();
            reader.read_to_end(&mut plain).unwrap();
            assert_eq!(plain, b"key");
        }
        assert!(Recipients::parse(&[]).unwrap().is_none());
    }

    #[test]
    fn a_file_has_one_on_each_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipients");
        let public = x25519::Identity::generate().to_public().to_string();
        fs::write(&path, format!("# the archive\n\n  {public}\n{SSH} someone@host\n")).unwrap();
        let recipients = Recipients::parse(&[text(&path)]).unwrap().unwrap();
        assert_eq!(recipients.texts().collect::<Vec<_>>(), [public.as_str(), SSH]);
    }

    #[test]
    fn what_is_no_recipient_is_named_and_no_secret_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = |content: &[u8]| {
            let path = folder.path().join("file");
            fs::write(&path, content).unwrap();
            text(&path)
        };
        let refused = |text: String| Recipients::parse(&[text]).unwrap_err();
        assert!(
            refused("/nonexistent/x".into()).starts_with("--record-encrypt /nonexistent/x: it is no public")
        );
        assert!(refused("age1qqqq".into()).contains("age1qqqq: it is no X25519 public key"));
        assert!(refused("ssh-dss AAAA".into()).contains("no public key of ssh"));
        assert!(refused(file(b"# none\n")).ends_with("the file names nobody"));
        assert!(refused(file(b"\nhello\n")).contains("line 2 is no public key"));
        assert!(refused(file(b"\xff")).ends_with("the file is not text"));
        let many = format!("{SSH}\n").repeat(RECIPIENTS_MAX + 1);
        assert_eq!(refused(file(many.as_bytes())), "--record-encrypt: 257 recipients, 256 at most");
        let most = file(format!("{SSH}\n").repeat(RECIPIENTS_MAX).as_bytes());
        assert!(Recipients::parse(&[most]).unwrap().unwrap().encrypt(&[7; 32]).unwrap().len() < 256 << 10);
        let secret = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
        for message in [refused(secret.into()), refused(file(secret.as_bytes()))] {
            assert!(message.contains("secret key") && !message.contains("1GQ9778"), "{message}");
        }
    }

    fn text(path: &Path) -> String {
        path.to_str().unwrap().to_owned()
    }

    const SSH: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
}
