// Markdown of strangers as HTML: no HTML of theirs, no image, and links that show where they lead.
import MarkdownIt from "markdown-it";

export const MOST_CHARS = 100_000;

const reader = new MarkdownIt({ html: false, linkify: false, breaks: false, maxNesting: 30 });
reader.renderer.rules.image = (tokens, at) => {
  const token = tokens[at];
  return `<span class="md-image">🖼 ${escaped(token.content || "image")} <span class="md-target">${escaped(token.attrGet("src"))}</span></span>`;
};
reader.renderer.rules.link_open = (tokens, at) => {
  const href = escaped(tokens[at].attrGet("href"));
  return `<a href="${href}" rel="noopener noreferrer nofollow" target="_blank" referrerpolicy="no-referrer">`;
};
reader.renderer.rules.link_close = (tokens, at) => {
  let open = at;
  for (let depth = 1; depth && open > 0; ) depth += { link_close: 1, link_open: -1 }[tokens[(open -= 1)].type] ?? 0;
  const href = tokens[open].attrGet("href") ?? "";
  const text = tokens.slice(open + 1, at).map((token) => token.content).join("");
  return text === href ? "</a>" : `</a> <span class="md-target">${escaped(href)}</span>`;
};
for (const cell of ["th_open", "td_open"]) {
  reader.renderer.rules[cell] = (tokens, at, options, env, self) => {
    // Columns' alignment comes as a style attribute, which the page's policy forbids.
    const style = tokens[at].attrGet("style");
    if (style) {
      tokens[at].attrs = null;
      tokens[at].attrSet("class", style.replace("text-align:", "md-"));
    }
    return self.renderToken(tokens, at, options);
  };
}

const escaped = (text) => reader.utils.escapeHtml(text ?? "");

/** HTML that is safe to put into the page. */
export const markdown = (text) => reader.render(text);
