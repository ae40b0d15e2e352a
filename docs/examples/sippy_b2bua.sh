#!/bin/sh
# Sippy B2BUA with the media of all calls through rtpproxy:
#
#     rtpproxy -s cunix:/run/rtpproxy/control.sock -n unix:/run/b2bua/command.sock -l 198.51.100.1 -T 60
#     docs/examples/sippy_b2bua.sh
#
# Written for version 2.5 (pip install sippy). It stays in the foreground, which is what service managers want. Each of
# the values below may come from the environment instead.
set -eu

# Where SIP comes in, and the hosts that may call, with commas between them.
: "${SIP_ADDRESS:=198.51.100.1}"
: "${SIP_PORT:=5060}"
: "${CALLERS:=192.0.2.10}"

# Where all calls go: a gateway or a PBX, as HOST:PORT.
: "${NEXT_HOP:=192.0.2.20:5060}"

# The control sockets of rtpproxy, with commas between them: udp:HOST:PORT, udp6:, tcp:, tcp6:, cunix:PATH or unix:PATH,
# as in its option -s. A call takes one of those that answer at random.
: "${RTPPROXY:=cunix:/run/rtpproxy/control.sock}"

# Where the B2BUA hears that a call has no media any more, and hangs it up. The option -n of rtpproxy has to name the
# same socket in the same way: unix:PATH or tcp:HOST:PORT. Both programs must be able to reach the path.
: "${COMMAND_SOCKET:=unix:/run/b2bua/command.sock}"

# Without RADIUS: whoever may call is neither asked for a password nor billed.
exec b2bua \
    --foreground=on --auth_enable=off --digest_auth=off --acct_enable=off \
    --sip_address="$SIP_ADDRESS" --sip_port="$SIP_PORT" --accept_ips="$CALLERS" --static_route="$NEXT_HOP" \
    --rtp_proxy_clients="$RTPPROXY" --b2bua_socket="$COMMAND_SOCKET" "$@"
