<?php

declare(strict_types=1);

namespace Wootz;

/** Who sent a message, and the message: what a call is told (CGI's variables, by name). */
final class Connection
{
    /** Unguessable, and the same in all calls of one browser's connection. */
    public readonly string $id;

    /** The user's id; null is a guest. */
    public readonly ?string $user;

    /** Why there is this call: `message`, `push`, `validate`, `connect` or `disconnect`. */
    public readonly string $event;

    /** The message where it is a URI, verbatim (`echo/abc`), else the URI of the handshake. */
    public readonly string $uri;

    /** The browser's address and port; '' and 0 where there are none. */
    public readonly string $ip;
    public readonly int $port;

    /** @var array<string, string> The handshake's header fields, as getallheaders() names them: `User-Agent`. */
    public readonly array $headers;

    /** @var array<string, mixed> The handshake's cookies, as $_COOKIE has them. */
    public readonly array $cookies;

    /**
     * @param array<string, string> $env     every variable of the call
     * @param string                $message byte for byte as the browser sent it
     */
    public function __construct(public readonly array $env, public readonly string $message)
    {
        $this->id = $env['WOOTZ_CONNECTION'] ?? '';
        $this->user = $env['REMOTE_USER'] ?? null;
        $this->event = $env['WOOTZ_EVENT'] ?? 'message';
        $this->uri = $env['REQUEST_URI'] ?? '/';
        $this->ip = $env['REMOTE_ADDR'] ?? '';
        $this->port = (int) ($env['REMOTE_PORT'] ?? 0);
        $headers = [];
        foreach ($env as $name => $value) {
            if (str_starts_with($name, 'HTTP_')) {
                $headers[ucwords(strtolower(strtr(substr($name, strlen('HTTP_')), '_', '-')), '-')] = $value;
            }
        }
        $this->headers = $headers;
        $this->cookies = self::parseCookies($env['HTTP_COOKIE'] ?? '');
    }

    /**
     * As PHP reads cookies: the first of equal names counts, and only the value is decoded, a plus remaining a plus.
     *
     * @return array<string, mixed>
     */
    private static function parseCookies(string $header): array
    {
        $cookies = [];
        $literal = ['&' => '%26', '+' => '%2B', '%' => '%25'];
        foreach (explode(';', $header) as $pair) {
            [$name, $value] = explode('=', ltrim($pair), 2) + [1 => ''];
            parse_str(strtr($name, $literal) . '=' . strtr($value, ['%' => '%'] + $literal), $cookie);
            $cookies += $cookie;
        }
        return $cookies;
    }
}
