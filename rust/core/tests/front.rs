//! What happens to a command before it reaches a session.

use std::cell::RefCell;
use std::net::IpAddr;

use rtpproxy_core::command::{AnyRules, ErrorCode, Reply, parse};
use rtpproxy_core::config::FrontConfig;
use rtpproxy_core::front::{Accepted, Front, Origin, Routes};

/// Knows routes to loopback only, and what it was asked.
#[derive(Default)]
struct Noted(RefCell<Vec<IpAddr>>);

impl Routes for Noted {
    fn source_for(&self, to: IpAddr) -> Option<IpAddr> {
        self.0.borrow_mut().push(to);
        to.is_loopback().then_some(to)
    }
}

fn asked_for(text: &str, by_value: bool) -> (Accepted, usize) {
    let routes = Noted::default();
    let mut front = Front::new(FrontConfig::default());
    let accepted = if by_value {
        let command = parse(text.as_bytes(), &mut AnyRules).expect("a command");
        front.accept_command(command, Origin::default(), &routes)
    } else {
        front.accept(text.as_bytes(), Origin::default(), &routes)
    };
    (accepted, routes.0.into_inner().len())
}

#[test]
fn a_route_is_looked_up_once_in_a_command() {
    for by_value in [false, true] {
        let (accepted, asked) = asked_for("Ur127.0.0.1 c 0 0 f", by_value);
        let Accepted::One(request) = accepted else { panic!("{accepted:?}") };
        assert_eq!(request.locals.unwrap().replace.unwrap().ip, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(asked, 1);
        // The sub-command asks for the same one, and for another.
        let text = "Ur127.0.0.1 c 0 0 f t && Lr127.0.0.1 0 0 && Lr127.0.0.2 0 0";
        let (accepted, asked) = asked_for(text, by_value);
        let Accepted::One(request) = accepted else { panic!("{accepted:?}") };
        let ips = request.sub_locals.iter().map(|choice| choice.replace.as_ref().unwrap().ip);
        assert_eq!(ips.collect::<Vec<_>>(), [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from));
        assert_eq!(asked, 2);
        let (accepted, asked) = asked_for("Ur192.0.2.1 c 0 0 f", by_value);
        assert_eq!(accepted, Accepted::Answer(Reply::Error(ErrorCode::NO_ROUTE)));
        assert_eq!(asked, 1);
    }
}
