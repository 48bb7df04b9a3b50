"""What a method, a parser or a command says when it cannot do what was asked."""


class Refusal(ValueError):
    """Bad input, told in one message: what was required, what arrived, the likeliest cause, what to do instead.

    Command lines print the message and leave with exit code 2; nothing has been written by then.
    """
