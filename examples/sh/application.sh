#!/bin/sh
# An application for wootz: it reads the request from variables, prints the reply, and ends. Any program will do.
# What came from the browser is only ever printed by '%s' or compared, never run.

parameter() { # prints the parameter $1 of the query, percent-decoded; fails where there is none
    case "&$QUERY_STRING" in *"&$1="*) ;; *) return 1 ;; esac
    rest="&$QUERY_STRING" rest=${rest#*"&$1="} rest=${rest%%"&"*} decoded=
    [ "${#rest}" -le 200 ] || return 1
    while [ -n "$rest" ]; do
        tail=${rest#?}
        char=${rest%"$tail"}
        case $rest in
            +*) char=' ' ;;
            "\\"*) char='\0134' ;;
            %[0-9A-Fa-f][0-9A-Fa-f]*)
                tail=${rest#???} hex=${rest%"$tail"}
                byte=$((0x${hex#%}))
                char="\\0$((byte / 64))$((byte / 8 % 8))$((byte % 8))" ;;
        esac
        decoded=$decoded$char rest=$tail
    done
    printf '%b' "$decoded"
}

case ${REQUEST_METHOD-}:${PATH_INFO-} in
    GET:/hello) name=$(parameter name) || name=stranger; printf 'Hello, %s!\n' "$name" ;;
    GET:/time) date '+%Y-%m-%d %H:%M:%S %Z' ;;
    GET:/whoami)
        printf '%s from %s, served by process %s\n' "${REMOTE_USER-guest}" "${REMOTE_ADDR-somewhere}" "$$" ;;
    GET:/slow) sleep 2; echo 'That took two seconds. Nobody else waited.' ;;
    GET:/fail) echo 'the application has something to say about this' >&2; exit 3 ;;
    POST:*) printf 'You said: '; cat ;;
    *) echo 'Try /hello?name=you  /time  /whoami  /slow  /fail, or a sentence.' ;;
esac
