<?php

declare(strict_types=1);

namespace Wootz;

use UnexpectedValueException as Violation;

/**
 * One FastCGI request and its answer, on a connection of its own. Nothing is taken for a request that did not arrive whole. The
 * answer is a CGI header block, the reply, and END_REQUEST.
 */
final class Exchange
{
    private const BEGIN_REQUEST = 1, END_REQUEST = 3, PARAMS = 4, STDIN = 5, STDOUT = 6, STDERR = 7, RESPONDER = 1;

    /** As much as a record can say, and a multiple of 8, so that none needs padding. */
    private const MAX_CONTENT_BYTES = 65528;

    /** wootz sends a whole request at once: a peer that pauses so long is broken. */
    private const RECEIVE_TIMEOUT_SECONDS = 10;

    /** @var array<string, string> */
    public readonly array $variables;
    public readonly string $message;
    private readonly int $request;
    private bool $hasBegun = false;
    private bool $gone = false;

    /**
     * Reads a request from a new connection.
     *
     * @param resource $stream
     * @throws Violation when it is none, or not whole
     */
    public function __construct(private $stream)
    {
        stream_set_timeout($stream, self::RECEIVE_TIMEOUT_SECONDS);
        stream_set_chunk_size($stream, 65536);
        [$type, $this->request, $content] = $this->readRecord();
        if ($type !== self::BEGIN_REQUEST || strlen($content) !== 8) throw new Violation("a request begins with BEGIN_REQUEST, not with type $type");
        $role = unpack('n', $content)[1];
        if ($role !== self::RESPONDER) throw new Violation("this worker is a responder; role $role was asked for");
        $this->variables = self::parseVariables($this->readStream(self::PARAMS));
        $this->message = $this->readStream(self::STDIN);
        $told = $this->variables['CONTENT_LENGTH'] ?? '';
        if ($told !== '' && (int) $told !== strlen($this->message)) throw new Violation("$told bytes were announced, " . strlen($this->message) . ' came');
    }

    /** Whether the browser may have got a part of the reply already, so that a status would come too late. */
    public function hasBegun(): bool
    {
        return $this->hasBegun;
    }

    /** Sends a part of the reply. */
    public function output(string $bytes): void
    {
        if ($bytes === '') return; // as a record it would be the end of the output
        $this->send(self::STDOUT, $this->hasBegun ? $bytes : self::header() . $bytes);
        $this->hasBegun = true;
    }

    /** Sends what is meant for the log. */
    public function error(string $text): void
    {
        $text === '' || $this->send(self::STDERR, $text);
    }

    /** Ends the answer. The status is an exit status: with anything but 0, wootz sends nothing (more) of the reply. */
    public function end(int $status): void
    {
        $this->hasBegun || $this->send(self::STDOUT, self::header());
        $this->send(self::END_REQUEST, pack('Nx4', $status));
        // A program that the call has started may hold the connection too: it ends for all of them.
        stream_socket_shutdown($this->stream, STREAM_SHUT_RDWR);
    }

    private static function header(): string
    {
        $status = http_response_code() ?: 200;
        return ($status === 200 ? '' : "Status: $status\r\n") . "Content-Type: text/plain; charset=utf-8\r\n\r\n";
    }

    /** A peer that is gone gets nothing more; that is no fault of the application's. */
    private function send(int $type, string $bytes): void
    {
        $records = '';
        foreach (str_split($bytes, self::MAX_CONTENT_BYTES) as $content) $records .= pack('CCnnxx', 1, $type, $this->request, strlen($content)) . $content;
        for ($sent = 0; !$this->gone && $sent < strlen($records); $sent += $count) {
            $count = @fwrite($this->stream, $sent === 0 ? $records : substr($records, $sent));
            $this->gone = !$count;
        }
    }

    private function readStream(int $expected): string
    {
        $parts = [];
        do {
            [$type, $request, $parts[]] = $this->readRecord();
            if ([$type, $request] !== [$expected, $this->request]) throw new Violation("record of type $type for request $request, not $expected for $this->request");
        } while (end($parts) !== '');
        return implode($parts);
    }

    /** @return array{int, int, string} type, request, content */
    private function readRecord(): array
    {
        $header = unpack('Cversion/Ctype/nrequest/nlength/Cpadding', $this->read(8));
        if ($header['version'] !== 1) throw new Violation("FastCGI version $header[version] is unknown");
        $content = substr($this->read($header['length'] + $header['padding']), 0, $header['length']);
        return [$header['type'], $header['request'], $content];
    }

    private function read(int $length): string
    {
        $bytes = $length === 0 ? '' : (string) stream_get_contents($this->stream, $length);
        return strlen($bytes) === $length ? $bytes : throw new Violation('the request was cut off');
    }

    /** @return array<string, string> */
    private static function parseVariables(string $bytes): array
    {
        $variables = [];
        for ($at = 0; $at < strlen($bytes); $at += $name + $value) {
            $name = self::parseLength($bytes, $at);
            $value = self::parseLength($bytes, $at);
            if (strlen($bytes) - $at < $name + $value) throw new Violation('a variable was cut off');
            $variables[substr($bytes, $at, $name)] = substr($bytes, $at + $name, $value);
        }
        return $variables;
    }

    /** A length below 128 is one byte, a longer one is four with the highest bit set. */
    private static function parseLength(string $bytes, int &$at): int
    {
        $first = ord($bytes[$at] ?? "\xFF");
        $size = $first < 128 ? 1 : 4;
        if (strlen($bytes) - $at < $size) throw new Violation('a variable was cut off');
        $at += $size;
        return $size === 1 ? $first : unpack('N', $bytes, $at - $size)[1] & 0x7FFFFFFF;
    }
}
