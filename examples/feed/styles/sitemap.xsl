<?xml version="1.0" encoding="UTF-8"?>
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"
  xmlns:s="http://www.sitemaps.org/schemas/sitemap/0.9" exclude-result-prefixes="s">
  <xsl:output method="html" encoding="UTF-8" />
  <xsl:param name="title" select="'Sitemap'" />
  <xsl:template match="/">
    <html lang="en">
      <head><title><xsl:value-of select="$title" /></title></head>
      <body>
        <h1><xsl:value-of select="$title" /> (<xsl:value-of select="count(//s:url)" />)</h1>
        <table>
          <xsl:for-each select="s:urlset/s:url">
            <xsl:sort select="s:lastmod" order="descending" />
            <tr><td><a href="{s:loc}"><xsl:value-of select="s:loc" /></a></td><td><xsl:value-of select="s:lastmod" /></td></tr>
          </xsl:for-each>
        </table>
      </body>
    </html>
  </xsl:template>
</xsl:stylesheet>
