<?php

declare(strict_types=1);

namespace Wootz;

/**
 * Sends to browsers from any PHP: a page under php-fpm, a command, a worker. One request on wootz's control socket each.
 *
 *     Wootz\Push::all('Closing in five minutes');
 *     Wootz\Push::user(42, 'Your parcel has left');
 *     Wootz\Push::request(42, '/cart');      // runs /cart as user 42, in each of their connections' sessions
 *     Wootz\Push::channel('news', $json)->queued;
 *
 * Every call gives a receipt, or throws a PushException; nobody being there to be reached is no error.
 */
final class Push
{
    /** Where the server listens. Null: the variable WOOTZ_CONTROL, else wootz.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or here. */
    public static ?string $socket = null;

    /** How long the server may take to answer. */
    public static float $seconds = 5.0;

    /** To every connection. */
    public static function all(string $message, bool $binary = false, bool $wait = false): Receipt
    {
        return self::message(['all' => true], $message, $binary, $wait);
    }

    /** To all connections of a user, by the exact id. */
    public static function user(int|string $user, string $message, bool $binary = false, bool $wait = false): Receipt
    {
        return self::message(['user' => (string) $user], $message, $binary, $wait);
    }

    /** To all connections of a session, by its exact id: session_id(). */
    public static function session(string $session, string $message, bool $binary = false, bool $wait = false): Receipt
    {
        return self::message(['session' => $session], $message, $binary, $wait);
    }

    /** To one connection. */
    public static function connection(string $id, string $message, bool $binary = false, bool $wait = false): Receipt
    {
        return self::message(['connection' => $id], $message, $binary, $wait);
    }

    /** To the connections in a channel, by its exact name. */
    public static function channel(string $name, string $message, bool $binary = false, bool $wait = false): Receipt
    {
        return self::message(['channel' => $name], $message, $binary, $wait);
    }

    /**
     * Runs a request as its user in each of their connections, and sends there what it prints.
     *
     * @param int|string|array<string, string|true> $to a user, or a target as the API names it: ['all' => true], ['channel' => 'news']
     * @param bool $once run it once for each user, and send all their connections what it prints
     */
    public static function request(int|string|array $to, string $uri, bool $once = false, bool $wait = false): Receipt
    {
        $to = is_array($to) ? $to : ['user' => (string) $to];
        return self::send(['to' => $to, 'request' => $uri] + ($once ? ['once' => true] : []), $wait);
    }

    /** Puts a connection into a channel; without an id the one that this call runs for. */
    public static function join(string $channel, ?string $connection = null): void
    {
        self::ask('PUT', self::channelPath($channel, $connection), null, self::$seconds);
    }

    /** Takes a connection out of a channel; without an id the one that this call runs for. */
    public static function leave(string $channel, ?string $connection = null): void
    {
        self::ask('DELETE', self::channelPath($channel, $connection), null, self::$seconds);
    }

    /** @param array<string, string|true> $to */
    private static function message(array $to, string $message, bool $binary, bool $wait): Receipt
    {
        return self::send(['to' => $to] + ($binary ? ['binary' => base64_encode($message)] : ['text' => $message]), $wait);
    }

    /** @param array<string, mixed> $push */
    private static function send(array $push, bool $wait): Receipt
    {
        $seconds = self::$seconds;
        if ($wait) {
            $push += ['wait' => true, 'deadline' => min(60, $seconds)];
            $seconds += 1; // the server's answer to its own deadline
        }
        try {
            $body = json_encode($push, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
        } catch (\JsonException $error) {
            throw new PushException('what is pushed is no UTF-8 text (binary: true sends any bytes)', 0, $error);
        }
        return new Receipt(json_decode(self::ask('POST', '/v1/push', $body, $seconds), true) ?? []);
    }

    private static function channelPath(string $channel, ?string $connection): string
    {
        $connection ??= self::variable('WOOTZ_CONNECTION');
        if ($connection === null) {
            throw new PushException('this is no call of a connection: name the connection');
        }
        return '/v1/connections/' . rawurlencode($connection) . '/channels/' . rawurlencode($channel);
    }

    private static function variable(string $name): ?string
    {
        $value = $_SERVER[$name] ?? getenv($name);
        return is_string($value) && $value !== '' ? $value : null;
    }

    private static function path(): string
    {
        $path = self::$socket ?? self::variable('WOOTZ_CONTROL');
        if ($path !== null) return $path;
        foreach (['RUNTIME_DIRECTORY', 'XDG_RUNTIME_DIR'] as $name) {
            $directory = explode(':', self::variable($name) ?? '')[0];
            if ($directory !== '' && is_dir($directory)) return "$directory/wootz.sock";
        }
        return 'wootz.sock';
    }

    private static function ask(string $method, string $target, ?string $body, float $seconds): string
    {
        $deadline = microtime(true) + $seconds;
        $path = self::path();
        $stream = @stream_socket_client("unix://$path", $code, $why, $seconds);
        if (!$stream) {
            throw new PushException("no wootz listens at $path: $why (name its socket in Wootz\\Push::\$socket or WOOTZ_CONTROL)");
        }
        // A call shows its token: then it may change its own connection as any user.
        $own = $method !== 'POST' && self::variable('WOOTZ_CONNECTION') !== null
            && str_contains($target, (string) self::variable('WOOTZ_CONNECTION'));
        $token = $own ? self::variable('WOOTZ_TOKEN') : null;
        $request = "$method $target HTTP/1.1\r\nHost: wootz\r\nConnection: close\r\n"
            . ($token === null ? '' : "Authorization: Bearer $token\r\n")
            . ($body === null ? "\r\n" : "Content-Type: application/json\r\nContent-Length: " . strlen($body) . "\r\n\r\n$body");
        try {
            return self::body($path, self::exchange($stream, $request, $deadline, $seconds));
        } finally {
            fclose($stream);
        }
    }

    /** @param resource $stream */
    private static function exchange($stream, string $request, float $deadline, float $seconds): string
    {
        stream_set_blocking($stream, false);
        $answer = '';
        while (true) {
            $left = $deadline - microtime(true);
            if ($left <= 0) {
                throw new PushException("wootz has not answered within $seconds s");
            }
            $readable = [$stream];
            $writable = $request === '' ? null : [$stream];
            $none = null;
            // A signal may end the wait early; the loop comes back to it.
            @stream_select($readable, $writable, $none, (int) $left, (int) (fmod($left, 1) * 1e6));
            if ($request !== '') {
                // A server that refuses a long body answers before it has read it; what it says comes below.
                $written = @fwrite($stream, $request);
                $request = $written === false ? '' : substr($request, $written);
            }
            $part = @fread($stream, 65536);
            $answer .= $part === false ? '' : $part;
            if (feof($stream)) return $answer;
        }
    }

    private static function body(string $path, string $answer): string
    {
        [$head, $body] = explode("\r\n\r\n", $answer, 2) + [1 => ''];
        if (!preg_match('~^HTTP/1\.1 (\d{3})~', $head, $found)) {
            throw new PushException("what listens at $path does not answer as wootz does");
        }
        if ($found[1][0] === '2') return $body;
        $error = json_decode($body, true)['error'] ?? [];
        throw new PushException($error['message'] ?? "wootz answered $found[1]", (int) $found[1]);
    }
}
