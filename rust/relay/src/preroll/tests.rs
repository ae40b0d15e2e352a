use rtpproxy_core::time::Mono;
