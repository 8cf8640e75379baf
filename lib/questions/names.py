"""Other names of countries and cities in English, and sovereign states: what GeoNames' tables do
not say.
"""

# Short, long, former and own names that are a normal answer. ISO codes are left out apart from the
# few that people write: a two- or three-letter code (IN, NO, CAN, AND) is also a word, and a judge
# that looks for an answer inside a text would find it there.
COUNTRY_NAMES = {
    "US": ["USA", "US", "U.S.A.", "United States of America", "America"],
    "GB": [
        "UK",
        "U.K.",
        "Great Britain",
        "Britain",
        "England",
        "Scotland",
        "Wales",
        "Northern Ireland",
    ],
    "AE": ["UAE", "U.A.E.", "Emirates"],
    "CD": ["DR Congo", "DRC", "Congo-Kinshasa", "Congo", "Zaire"],
    "CG": ["Congo-Brazzaville", "Congo"],
    "CN": ["People's Republic of China", "PRC", "Mainland China"],
    "TW": ["Republic of China", "Chinese Taipei"],
    "KR": ["Republic of Korea", "Korea"],
    "KP": ["Democratic People's Republic of Korea", "DPRK", "Korea"],
    "RU": ["Russian Federation"],
    "CZ": ["Czech Republic"],
    "NL": ["Netherlands", "Holland", "The Netherlands"],
    "MM": ["Burma"],
    "CI": ["Cote d'Ivoire", "Côte d'Ivoire"],
    "CV": ["Cape Verde"],
    "TL": ["East Timor", "Timor-Leste"],
    "SZ": ["Swaziland"],
    "MK": ["Macedonia"],
    "TR": ["Türkiye", "Turkiye"],
    "PS": ["Palestine", "State of Palestine", "Palestinian Territories", "West Bank", "Gaza"],
    "VA": ["Vatican City", "Holy See"],
    "MO": ["Macau"],
    "SY": ["Syrian Arab Republic"],
    "IR": ["Islamic Republic of Iran", "Persia"],
    "LA": ["Lao People's Democratic Republic"],
    "VN": ["Viet Nam"],
    "BO": ["Plurinational State of Bolivia"],
    "TZ": ["United Republic of Tanzania"],
    "MD": ["Republic of Moldova"],
    "IE": ["Republic of Ireland", "Eire"],
    "GM": ["The Gambia"],
    "BS": ["The Bahamas"],
    "FM": ["Federated States of Micronesia"],
    "BA": ["Bosnia"],
    "KG": ["Kyrgyz Republic"],
    "SK": ["Slovak Republic"],
    "DE": ["Federal Republic of Germany", "Deutschland"],
    "ES": ["España"],
    "BR": ["Brasil"],
    "LK": ["Ceylon"],
    "KH": ["Kampuchea"],
    "TT": ["Trinidad"],
    "VC": ["Saint Vincent", "St. Vincent and the Grenadines"],
    "KN": ["St. Kitts and Nevis"],
    "LC": ["St. Lucia"],
    "RE": ["La Réunion"],
}

# "In which country is Kowloon?" is also answered rightly by the sovereign state.
SOVEREIGN = {
    "HK": "CN", "MO": "CN", "PR": "US", "GU": "US", "VI": "US", "AS": "US", "MP": "US", "RE": "FR", "GP": "FR",
    "MQ": "FR", "GF": "FR", "YT": "FR", "NC": "FR", "PF": "FR", "MF": "FR", "BL": "FR", "PM": "FR", "WF": "FR",
    "GI": "GB", "IM": "GB", "JE": "GB", "GG": "GB", "BM": "GB", "KY": "GB", "FK": "GB", "TC": "GB", "VG": "GB",
    "AI": "GB", "MS": "GB", "SH": "GB", "GL": "DK", "FO": "DK", "AW": "NL", "CW": "NL", "SX": "NL", "BQ": "NL",
    "AX": "FI", "SJ": "NO", "CK": "NZ", "NU": "NZ", "TK": "NZ", "CX": "AU", "CC": "AU", "NF": "AU",
}  # fmt: skip

# Countries on two continents: GeoNames knows one, both are right.
SECOND_CONTINENT = {
    "RU": "AS",
    "TR": "EU",
    "KZ": "EU",
    "AZ": "EU",
    "GE": "EU",
    "AM": "EU",
    "CY": "EU",
    "EG": "AS",
}

WITH_ARTICLE = (
    "United",
    "Netherlands",
    "Philippines",
    "Bahamas",
    "Maldives",
    "Gambia",
    "Comoros",
    "Seychelles",
    "Vatican",
    "Central African",
    "Democratic Republic",
    "Republic of",
    "Dominican Republic",
    "Isle of",
    "British",
    "Palestinian",
    "U.S.",
    "French Southern",
)

# Second English names, used only where GeoNames lists the name as an alternate name of the city.
CITY_NAMES = {
    "Mumbai": "Bombay", "Kolkata": "Calcutta", "Chennai": "Madras", "Bengaluru": "Bangalore", "Pune": "Poona",
    "Kyiv": "Kiev", "Kharkiv": "Kharkov", "Odesa": "Odessa", "Lviv": "Lvov", "Saint Petersburg": "Leningrad",
    "Volgograd": "Stalingrad", "Yekaterinburg": "Sverdlovsk", "Nizhniy Novgorod": "Gorky", "Samara": "Kuybyshev",
    "Ho Chi Minh City": "Saigon", "Yangon": "Rangoon", "Beijing": "Peking", "Guangzhou": "Canton",
    "Nanjing": "Nanking", "Tianjin": "Tientsin", "Chongqing": "Chungking", "Xiamen": "Amoy", "Shenyang": "Mukden",
    "Istanbul": "Constantinople", "İzmir": "Smyrna", "Izmir": "Smyrna", "Ankara": "Angora", "Edirne": "Adrianople",
    "Thessaloniki": "Salonica", "Thessaloníki": "Salonica", "Kinshasa": "Leopoldville", "Lubumbashi": "Elisabethville",
    "Harare": "Salisbury", "Maputo": "Lourenco Marques", "Dhaka": "Dacca", "Chittagong": "Chattogram",
    "Mysore": "Mysuru", "Varanasi": "Benares", "Vadodara": "Baroda", "Visakhapatnam": "Vizag", "Kochi": "Cochin",
    "Kozhikode": "Calicut", "Thiruvananthapuram": "Trivandrum", "Tiruchirappalli": "Trichy", "Kanpur": "Cawnpore",
    "Faisalabad": "Lyallpur", "Makassar": "Ujung Pandang", "Jakarta": "Batavia", "Bandung": "Bandoeng",
    "Gdańsk": "Danzig", "Wrocław": "Breslau", "Szczecin": "Stettin", "Poznań": "Posen", "Bratislava": "Pressburg",
    "Kaliningrad": "Königsberg", "Almaty": "Alma-Ata", "Astana": "Nur-Sultan", "Bishkek": "Frunze",
    "Dushanbe": "Stalinabad", "Tbilisi": "Tiflis", "Yerevan": "Erevan", "Mashhad": "Meshed", "Dnipro": "Dnipropetrovsk",
    "Donetsk": "Stalino", "The Hague": "Den Haag", "Turin": "Torino", "Milan": "Milano", "Naples": "Napoli",
    "Munich": "München", "Cologne": "Köln", "Sevilla": "Seville", "Gothenburg": "Göteborg", "Göteborg": "Gothenburg",
    "Ulan Bator": "Ulaanbaatar", "Ulaanbaatar": "Ulan Bator", "Podgorica": "Titograd",
    "Tallinn": "Reval", "Vilnius": "Vilna", "Kaunas": "Kovno", "Oslo": "Christiania", "Macau": "Macao",
}  # fmt: skip
