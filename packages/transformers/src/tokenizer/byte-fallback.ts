import type { Tokenizer as Library } from '@huggingface/tokenizers';

/** What of a decoder turns bytes into text, where it does; decoders may hold others. */
interface BytesDecoder {
  text_decoder?: { decode(bytes: Uint8Array): string };
  readonly decoders?: readonly BytesDecoder[];
  readonly config?: { readonly type?: string };
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Makes decoders of tokens that stand for bytes (`<0xE6>`) do as those of Python: a byte order mark is text as any other, and bytes that are no
 * text give one replacement character each.
 */
export function decodeBytesAsPython({ decoder }: Library): void {
  const visit = (part: BytesDecoder) => {
    if (part.config?.type === 'ByteFallback') part.text_decoder = { decode: textOf };
    for (const inner of part.decoders ?? []) visit(inner);
  };
  if (decoder) visit(decoder as unknown as BytesDecoder);
}

function textOf(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    return '\ufffd'.repeat(bytes.length);
  }
}
