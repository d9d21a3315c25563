/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The head of an answer that may take the short way: a subset of what user/http1.c accepts, so that
 * nothing passes here which the agent would refuse, or would have to know of. HTTP/1.1, a final
 * status, a body of known length, and a connection that goes on. Whatever is unusual is not taken:
 * the agent reads it then. selftests/prog_tests/answers.c compares the two parsers.
 */
#ifndef KKM_ANSWER_BPF_H
#define KKM_ANSWER_BPF_H

#define ANSWER_HEAD_MAX 4096 /* bytes; a longer one passes */
#define ANSWER_LENGTH_MAX (1U << 30)

struct answer_head {
	__u32 status;
	__u32 head; /* bytes, with the empty line */
	__u32 body; /* bytes */
};

enum answer_state {
	A_LINE,	      /* the first byte of a field line */
	A_NAME,
	A_BEFORE_VALUE,
	A_VALUE,
	A_LENGTH,     /* digits of Content-Length */
	A_LF,	      /* of a line */
	A_LAST_LF,    /* of the empty line */
	A_DONE,
	A_BAD,
};

struct answer_scan {
	struct sk_msg_md *msg;
	__u32 at;    /* the next byte */
	__u32 begin; /* of the name, or of the value */
	__u32 state;
	__u32 body;
	__u8 is_length, is_connection, has_length, digits;
};

/* token characters of RFC 9110, 5.6.2, as bits */
static __always_inline bool answer_is_token(__u8 c)
{
	return c < 64 ? (0x03ff6cfa00000000ULL >> c) & 1
		      : c < 128 && ((0x57ffffffc7fffffeULL >> (c - 64)) & 1);
}

/* One of eight bytes is a control character or beyond ASCII (the high bit of each says so). */
static __always_inline bool answer_is_special(__u64 w)
{
	const __u64 ones = 0x0101010101010101ULL, highs = 0x8080808080808080ULL;
	__u64 del = w ^ (ones * 0x7f);

	return (w | ((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & highs;
}

static __always_inline void *answer_at(struct sk_msg_md *msg, __u32 at, __u32 len)
{
	void *data = (void *)(long)msg->data, *end = (void *)(long)msg->data_end;

	if (at > ANSWER_HEAD_MAX)
		return NULL;
	data += at;
	return data + len > end ? NULL : data;
}

/* Upper case becomes lower; what else this changes is no token character. */
#define FOLD 0x2020202020202020ULL
#define WORD(s, i)                                                                                 \
	((__u64)(s)[i] | (__u64)(s)[i + 1] << 8 | (__u64)(s)[i + 2] << 16 |                        \
	 (__u64)(s)[i + 3] << 24 | (__u64)(s)[i + 4] << 32 | (__u64)(s)[i + 5] << 40 |             \
	 (__u64)(s)[i + 6] << 48 | (__u64)(s)[i + 7] << 56)

/* `len` bytes at `at`, at least 8, are `s`, whatever their case. */
#define ANSWER_EQUALS(msg, at, s)                                                                  \
	answer_words(msg, at, sizeof(s) - 1, WORD(s, 0), WORD(s, sizeof(s) - 9))

/* The first and the last eight bytes, which together are all of up to sixteen. */
static __always_inline bool answer_words(struct sk_msg_md *msg, __u32 at, __u32 len, __u64 first,
					 __u64 last)
{
	__u8 *p = answer_at(msg, at, len);

	if (!p)
		return false;
	return (*(__u64 *)p | FOLD) == first && (*(__u64 *)(p + len - 8) | FOLD) == last;
}

/* What the field means, now that its name has ended; false where the answer is not to be taken. */
static __always_inline bool answer_name(struct answer_scan *s, __u32 len)
{
	s->is_length = s->is_connection = 0;
	if (len == 14 && ANSWER_EQUALS(s->msg, s->begin, "content-length")) {
		s->is_length = !s->has_length;
		s->has_length = 1;
		return s->is_length;
	}
	if (len == 10 && ANSWER_EQUALS(s->msg, s->begin, "connection"))
		s->is_connection = 1;
	/* seventeen bytes: compared by their first and last words, and refused if these are right */
	return len != 17 || !ANSWER_EQUALS(s->msg, s->begin, "transfer-encoding");
}

static __always_inline __u32 answer_value_ends(struct answer_scan *s)
{
	if (s->is_length)
		return A_BAD; /* no digit was there */
	if (s->is_connection &&
	    (s->at - s->begin != 10 || !ANSWER_EQUALS(s->msg, s->begin, "keep-alive")))
		return A_BAD;
	return A_LF;
}

static __always_inline __u32 answer_value(struct answer_scan *s, __u8 c)
{
	if (c == '\r')
		return answer_value_ends(s);
	return (c >= 0x20 && c < 0x7f) || c == '\t' ? A_VALUE : A_BAD;
}

static __always_inline __u32 answer_digit(struct answer_scan *s, __u8 c)
{
	if (c == '\r')
		return A_LF;
	if (c < '0' || c > '9' || s->digits == 9)
		return A_BAD;
	s->digits++;
	s->body = s->body * 10 + (c - '0');
	return A_LENGTH;
}

static __always_inline __u32 answer_byte(struct answer_scan *s, __u8 c)
{
	switch (s->state) {
	case A_LINE:
		s->begin = s->at;
		if (c == '\r')
			return A_LAST_LF;
		return answer_is_token(c) ? A_NAME : A_BAD;
	case A_NAME:
		if (c != ':')
			return answer_is_token(c) ? A_NAME : A_BAD;
		return answer_name(s, s->at - s->begin) ? A_BEFORE_VALUE : A_BAD;
	case A_BEFORE_VALUE:
		if (c == ' ' || c == '\t')
			return A_BEFORE_VALUE;
		s->begin = s->at;
		if (s->is_length && c != '\r')
			return answer_digit(s, c);
		return answer_value(s, c);
	case A_VALUE:
		return answer_value(s, c);
	case A_LENGTH:
		return answer_digit(s, c);
	case A_LF:
		return c == '\n' ? A_LINE : A_BAD;
	case A_LAST_LF:
		return c == '\n' ? A_DONE : A_BAD;
	}
	return A_BAD;
}

static long answer_step(__u32 index, void *ctx)
{
	struct answer_scan *s = ctx;
	__u8 *p;

	(void)index;
	if (s->state == A_VALUE) {
		__u64 *w = answer_at(s->msg, s->at, 8);

		if (w && !answer_is_special(*w)) {
			s->at += 8;
			return 0;
		}
	}
	p = answer_at(s->msg, s->at, 1);
	if (!p)
		return 1;
	s->state = answer_byte(s, *p);
	s->at++;
	return s->state >= A_DONE;
}

/* "HTTP/1.1 ", three digits from 200 on, a blank; 0 where it is something else. */
static __always_inline __u32 answer_status(struct sk_msg_md *msg)
{
	__u8 *p = answer_at(msg, 0, 13);
	__u32 status;

	if (!p || *(__u64 *)p != WORD("HTTP/1.1", 0) || p[8] != ' ' || p[12] != ' ')
		return 0;
	if (p[9] < '2' || p[9] > '9' || p[10] < '0' || p[10] > '9' || p[11] < '0' || p[11] > '9')
		return 0;
	status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
	return status;
}

/*
 * Always zero, which the verifier does not know: so it looks at the loop's body once, for any state of
 * the scan, and not once for every byte that there might be.
 */
volatile __u32 answer_zero;

/* The whole head must be in the message's first piece, readable. */
static __always_inline bool answer_parse(struct sk_msg_md *msg, struct answer_head *out)
{
	__u32 zero = answer_zero;
	struct answer_scan s = {
		.msg = msg,
		.at = 13 + zero,
		.begin = zero,
		.state = A_VALUE + zero,
		.body = zero,
		.is_length = zero,
		.is_connection = zero,
		.has_length = zero,
		.digits = zero,
	};
	bool bare;

	out->status = answer_status(msg);
	if (!out->status)
		return false;
	bpf_loop(ANSWER_HEAD_MAX, answer_step, &s, 0);
	bare = out->status == 204 || out->status == 304;
	/* without a length it would last up to the end; and a bare one has none to trust */
	if (s.state != A_DONE || s.has_length == bare)
		return false;
	out->head = s.at;
	out->body = s.body;
	return true;
}

#endif
