<?php

declare(strict_types=1);

namespace Wootz;

/** A push that was not taken: the message says why, and getCode() is the HTTP status where the server answered, else 0. */
final class PushException extends \RuntimeException
{
}
